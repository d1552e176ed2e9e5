"""Rows of a queue: their order, their range, and the check before they are sent."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import PredictionsInvalid
from backend.labelstudio.predictions import check_rows, live_result, queue_row
from backend.labelstudio.schema import TaskSchema

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio_1.23.2"
CONFIGS = json.loads((FIXTURES / "label_configs.json").read_text())
SINGLE = CONFIGS["a1_single_choice"]["label_config"]
MULTI = CONFIGS["a2_multi_label"]["label_config"]
ALIASED = CONFIGS["d2_relevance_choices_taxonomy"]["label_config"]
SCHEMA = TaskSchema.from_label_config(SINGLE)


@given(st.integers(1, 20_000))
def test_scores_are_strictly_rising_and_inside_what_label_studio_keeps(length: int) -> None:
    ranks = range(length) if length < 300 else [0, 1, 2, length // 2, length - 2, length - 1]
    scores = [queue_row(1, rank, length, "v1", SCHEMA)["score"] for rank in ranks]
    assert all(a < b for a, b in pairwise(scores))
    assert scores[0] == 0.0 and scores[-1] < 1.0


@pytest.mark.parametrize(("rank", "length"), [(-1, 3), (3, 3), (0, 0)])
def test_ranks_outside_the_queue_are_refused(rank: int, length: int) -> None:
    with pytest.raises(ValueError, match="queue"):
        queue_row(1, rank, length, "v1", SCHEMA)


def test_rows_without_answer_have_an_empty_result() -> None:
    row = queue_row(5, 1, 4, "v3-margin", SCHEMA)
    assert row == {"task": 5, "result": [], "score": 0.25, "model_version": "v3-margin"}
    check_rows(SINGLE, [row])


@pytest.mark.parametrize(
    ("config", "answer"), [(SINGLE, "meme"), (MULTI, ["sarcastic", "hateful"]), (ALIASED, "3"), (MULTI, [])]
)
def test_rows_with_an_answer_pass_label_studios_own_check(config: str, answer: str | list[str]) -> None:
    schema = TaskSchema.from_label_config(config)
    check_rows(config, [queue_row(5, 0, 1, "v1", schema, answer, confidence=0.75)])


def test_answers_that_are_no_choice_are_refused_when_the_row_is_made() -> None:
    with pytest.raises(ValueError, match="'horse' is not among the choices news, ad, meme, other"):
        queue_row(5, 0, 1, "v1", SCHEMA, "horse")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": 1.01}, "not a number in"),
        ({"score": -0.01}, "not a number in"),
        ({"score": None}, "not a number in"),
        ({"score": "0.5"}, "not a number in"),
        ({"score": True}, "not a number in"),
        ({"score": math.nan}, "not a number in"),
        ({"model_version": ""}, "model_version is empty"),
        (
            {"result": [{"from_name": "nope", "to_name": "image", "type": "choices", "value": {"choices": ["ad"]}}]},
            "nope",
        ),
        (
            {"result": [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["x"]}}]},
            "x",
        ),
        ({"result": None}, ""),
        ({"result": [7]}, ""),
    ],
)
def test_bad_rows_are_found_before_they_are_sent(change: dict[str, Any], said: str) -> None:
    good = queue_row(1, 0, 2, "v1", SCHEMA)
    bad = {**queue_row(77, 1, 2, "v1", SCHEMA), **change}
    with pytest.raises(PredictionsInvalid) as refused:
        check_rows(SINGLE, [good, bad])
    assert "1 of 2" in str(refused.value) and "task 77" in str(refused.value) and said in str(refused.value)


def test_rows_of_another_label_config_are_found() -> None:
    with pytest.raises(PredictionsInvalid):
        check_rows(MULTI, [queue_row(1, 0, 1, "v1", SCHEMA, "meme")])


def test_live_results_have_finite_scores() -> None:
    assert live_result("v1-live", 0.5, SCHEMA) == {"result": [], "score": 0.5, "model_version": "v1-live"}
    for score in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite"):
            live_result("v1-live", score, SCHEMA)
