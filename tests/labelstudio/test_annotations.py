"""From annotation JSON to one label a task."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.annotations import Answer, Resolution, parse_time, read_answer, resolve_label
from backend.labelstudio.schema import TaskSchema

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio_1.23.2"
START = datetime(2026, 1, 1, tzinfo=UTC)
SINGLE = TaskSchema.from_label_config(
    '<View><Text name="t" value="$t"/><Choices name="label" toName="t">'
    '<Choice value="a"/><Choice value="b"/><Choice value="c"/></Choices></View>'
)
MULTI = TaskSchema.from_label_config(
    '<View><Text name="t" value="$t"/><Choices name="label" toName="t" choice="multiple">'
    '<Choice value="a"/><Choice value="b"/><Choice value="c"/></Choices></View>'
)


def annotation(*choices: str, **fields: Any) -> dict[str, Any]:
    region = {"from_name": "label", "to_name": "t", "type": "choices", "value": {"choices": list(choices)}}
    return {"id": 1, "task": 7, "completed_by": 3, "result": [region], **fields}


def answer(annotator: int | None, *choices: str, minute: int = 0, **fields: Any) -> Answer:
    identity = fields.pop("annotation_id", (annotator or 0) * 1000 + minute)
    known = {"was_cancelled": False, "ground_truth": False, **fields}
    picked = None if known["was_cancelled"] or known.get("problem") else choices
    return Answer(identity, 7, annotator, START + timedelta(minutes=minute), picked, **known)


def skip(annotator: int, minute: int = 0) -> Answer:
    return answer(annotator, minute=minute, was_cancelled=True)


@pytest.mark.parametrize(
    ("file", "choices"),
    [
        ("annotation_a1_single_choice.json", ("meme",)),
        ("annotation_a2_multi_label.json", ("hateful", "sarcastic")),
        ("annotation_b_alignment.json", None),
        ("annotation_d2_relevance_choices_taxonomy.json", None),
    ],
)
def test_annotations_submitted_in_label_studio_are_read(file: str, choices: tuple[str, ...] | None) -> None:
    entry = json.loads((FIXTURES / file).read_text())
    schema = TaskSchema.from_label_config(entry["label_config"])
    found = read_answer(schema, entry["annotation"])
    assert found.problem is None
    assert found.choices is not None and set(found.choices) <= set(schema.choices)
    assert choices is None or found.choices == choices
    assert (found.annotator_id, found.task_id) == (1, entry["annotation"]["task"])
    assert found.updated_at.tzinfo is not None


def test_skip_submitted_in_label_studio_is_read() -> None:
    entry = json.loads((FIXTURES / "17_annotation_skipped_was_cancelled.json").read_text())
    found = read_answer(SINGLE, entry["label_studio_api_call_result"][1])
    assert found.was_cancelled and found.choices is None and found.problem is None
    assert resolve_label([found], multi_label=False).kind == "skipped"


def test_other_controls_and_their_order_do_not_matter() -> None:
    other = {"from_name": "why", "to_name": "t", "type": "textarea", "value": {"text": ["because"]}}
    mixed = annotation("b")
    mixed["result"] = [other, *mixed["result"], {"type": "relation"}]
    assert read_answer(SINGLE, mixed).choices == ("b",)


def test_annotator_may_be_an_object_as_in_exports() -> None:
    assert read_answer(SINGLE, annotation("a", completed_by={"id": 9, "email": "x"})).annotator_id == 9
    assert read_answer(SINGLE, annotation("a", completed_by=None)).annotator_id is None


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (annotation("horse"), "'horse', which is not in the label config"),
        (annotation("a", "b"), "2 answers"),
        (annotation(), "no answer"),
        ({**annotation(), "result": []}, "no answer"),
        ({**annotation(), "result": None}, "no answer"),
        ({**annotation(), "result": [{"from_name": "label", "value": {"rating": 3}}]}, "no list of choices"),
        ({**annotation(), "result": [{"from_name": "label", "value": {"choices": [3]}}]}, "no list of choices"),
    ],
)
def test_what_cannot_be_read_is_a_problem_and_not_a_failure(raw: dict[str, Any], said: str) -> None:
    found = read_answer(SINGLE, raw)
    assert found.choices is None and said in str(found.problem)
    assert resolve_label([found], multi_label=False).kind == "unreadable"


def test_nothing_ticked_is_an_answer_where_several_may_be() -> None:
    found = read_answer(MULTI, {**annotation(), "result": []})
    assert found.choices == () and found.problem is None
    assert resolve_label([found], multi_label=True) == Resolution("label", ())


def test_times_are_compared_as_times() -> None:
    whole, fraction = parse_time("2026-11-22T03:01:15Z"), parse_time("2026-11-22T03:01:15.270477Z")
    assert whole < fraction < parse_time("2026-11-22T03:01:16Z")
    assert parse_time("2026-11-22T05:01:15+02:00") == whole == parse_time("2026-11-22T03:01:15")
    assert parse_time(None) == parse_time("yesterday") < whole


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], Resolution("none")),
        ([answer(1, "a")], Resolution("label", ("a",))),
        ([answer(1, "a"), answer(2, "b")], Resolution("tie")),
        ([answer(1, "a"), answer(2, "b"), answer(3, "b")], Resolution("label", ("b",))),
        ([answer(1, "a"), answer(1, "b", minute=1)], Resolution("label", ("b",))),
        ([answer(1, "b", minute=1), answer(1, "a"), answer(2, "a")], Resolution("tie")),
        ([skip(1), skip(2)], Resolution("skipped")),
        ([skip(1), answer(2, "a")], Resolution("label", ("a",))),
        ([answer(1, "a"), skip(1, minute=5)], Resolution("label", ("a",))),
        ([answer(1, "x", problem="?"), skip(2)], Resolution("unreadable")),
        ([answer(1, "x", problem="?"), answer(2, "a")], Resolution("label", ("a",))),
        ([answer(None, "a"), answer(None, "b", minute=1), answer(None, "b", minute=2)], Resolution("label", ("b",))),
        (
            [answer(1, "a", ground_truth=True), answer(2, "b"), answer(3, "b")],
            Resolution("label", ("a",), from_ground_truth=True),
        ),
        (
            [answer(1, "a", ground_truth=True), answer(2, "b", minute=9, ground_truth=True)],
            Resolution("label", ("b",), from_ground_truth=True),
        ),
        (
            [answer(1, "a", ground_truth=True), answer(2, "x", minute=9, ground_truth=True, problem="?")],
            Resolution("label", ("a",), from_ground_truth=True),
        ),
    ],
)
def test_one_label_of_several_answers(answers: list[Answer], expected: Resolution) -> None:
    assert resolve_label(answers, multi_label=False) == expected


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("a", "b"), ("b",)], Resolution("tie")),
        ([("b", "a"), ("a", "b")], Resolution("label", ("a", "b"))),
        ([("a", "b"), ("b",), ("b", "c")], Resolution("label", ("b",))),
        ([("a",), ("b",), ("c",)], Resolution("label", ())),
        ([(), (), ("a",)], Resolution("label", ())),
        ([(), ("a",)], Resolution("tie")),
    ],
)
def test_several_labels_are_decided_choice_by_choice(votes: list[tuple[str, ...]], expected: Resolution) -> None:
    answers = [answer(n, *vote) for n, vote in enumerate(votes, start=1)]
    assert resolve_label(answers, multi_label=True) == expected


@st.composite
def many_answers(draw: st.DrawFn) -> list[Answer]:
    multi = draw(st.booleans())
    found = []
    for number in range(draw(st.integers(0, 8))):
        picked = draw(st.sets(st.sampled_from("abc"), min_size=0 if multi else 1, max_size=3 if multi else 1))
        kind = draw(st.sampled_from(["answer", "answer", "answer", "skip", "strange", "truth"]))
        found.append(
            answer(
                draw(st.one_of(st.none(), st.integers(1, 3))),
                *sorted(picked),
                minute=draw(st.integers(0, 5)),
                annotation_id=number,
                was_cancelled=kind == "skip",
                ground_truth=kind == "truth",
                problem="?" if kind == "strange" else None,
            )
        )
    return found


@given(many_answers(), st.booleans(), st.randoms(use_true_random=False))
def test_label_does_not_depend_on_the_order_of_answers(
    answers: list[Answer], multi_label: bool, chance: random.Random
) -> None:
    mixed = list(answers)
    chance.shuffle(mixed)
    resolution = resolve_label(answers, multi_label)
    assert resolve_label(mixed, multi_label) == resolution
    assert (resolution.kind == "none") == (not answers)
    assert (resolution.choices is not None) == (resolution.kind == "label")
    if resolution.from_ground_truth:
        assert any(a.ground_truth for a in answers)


@given(many_answers(), st.booleans())
def test_skips_never_change_a_label(answers: list[Answer], multi_label: bool) -> None:
    resolution = resolve_label(answers, multi_label)
    if resolution.kind in ("label", "tie"):
        assert resolve_label([*answers, skip(1, minute=99), skip(9)], multi_label) == resolution
