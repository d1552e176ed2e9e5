"""Options, the queue and its reasons: what a round decides, without Label Studio."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ConfigurationError, OptionsInvalid, StrategyUnsuited
from backend.labelstudio.schema import TaskSchema
from backend.learners import LateFusionHead
from backend.rounds.fitting import RoundArrays, fit_head
from backend.rounds.options import ProjectOptions, change_options, matching_classes, parse_extra_params
from backend.rounds.reasons import REASONS, reason_of
from backend.rounds.selection import choose_queue
from backend.strategies import create_strategy, strategy_names
from backend.strategies.base import LabelledStrategy, Strategy
from tests.live.pool import CONFIG, MULTI_CONFIG

SCHEMA = TaskSchema.from_label_config(CONFIG)


def arrays(count: int, labelled: int, seed: int = 0) -> RoundArrays:
    rng = np.random.default_rng(seed)
    features = {}
    for modality, dims in (("image", 6), ("text", 5)):
        rows = rng.normal(size=(count, dims)).astype(np.float32)
        features[modality] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    mask = np.zeros(count, bool)
    mask[:labelled] = True
    labels = np.where(mask, rng.integers(0, 3, count), -1)
    return RoundArrays(np.arange(count) + 1000, features, labels, mask)


def queue_of(data: RoundArrays, seed: int = 1, **options: Any) -> list[Any]:
    head: LateFusionHead | None = fit_head(data, SCHEMA, seed=0)
    return choose_queue(data, head, ProjectOptions(**options), 3, False, seed)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(0, 60), labelled=st.integers(0, 60), batch=st.integers(1, 30), share=st.floats(0, 0.5),
    strategy=st.sampled_from(["auto", "random", "badge", "bmmal", "margin"]),
    balance=st.sampled_from(["none", "pcb", "tail_first"]),
)  # fmt: skip
def test_a_queue_is_distinct_unanswered_and_as_long_as_the_pool_allows(
    count: int, labelled: int, batch: int, share: float, strategy: str, balance: str
) -> None:
    data = arrays(count, min(labelled, count))
    queue = queue_of(data, strategy=strategy, batch_size=batch, queue_size=40, audit_share=share, balance=balance)
    ids = [place.task_id for place in queue]
    pool = set(data.task_ids[~data.labelled].tolist())
    assert len(set(ids)) == len(ids)
    assert set(ids) <= pool
    assert len(ids) == min(len(pool), 40)
    roles = [place.role for place in queue]
    size = min(batch, len(pool))
    assert all(role != "reserve" for role in roles[:size])
    assert all(role == "reserve" for role in roles[size:])
    assert all(place.reason in REASONS for place in queue)


def test_the_same_round_gives_the_same_queue_and_another_seed_another_control_sample() -> None:
    data = arrays(80, 20)
    assert queue_of(data, seed=3) == queue_of(data, seed=3)
    assert queue_of(data, seed=3, strategy="random") != queue_of(data, seed=4, strategy="random")


def test_the_control_sample_is_a_uniform_draw_of_the_stated_share() -> None:
    data = arrays(40, 10)
    drawn: Counter[int] = Counter()
    rounds = 300
    for seed in range(rounds):
        queue = queue_of(data, seed=seed, batch_size=5, queue_size=5, audit_share=0.3, strategy="margin")
        drawn.update(place.task_id for place in queue if place.role == "control")
    expected = rounds * 5 * 0.3 / 30
    total = sum(drawn.values())
    assert abs(total - rounds * 1.5) < 4 * np.sqrt(rounds * 0.25)
    counts = np.array([drawn[task_id] for task_id in data.task_ids[10:]])
    # Chi-square with 29 degrees of freedom stays below 60 but once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 60


def test_only_a_control_sample_that_measures_a_model_is_called_one() -> None:
    for labelled, said in ((20, "control"), (0, "random")):
        queue = queue_of(arrays(80, labelled), batch_size=10, audit_share=0.5)
        assert {place.reason for place in queue if place.role == "control"} == {said}


def test_nothing_left_to_label_gives_an_empty_queue() -> None:
    assert queue_of(arrays(12, 12)) == []
    assert choose_queue(arrays(0, 0), None, ProjectOptions(), 3, False, 1) == []


def test_a_balanced_project_serves_the_classes_with_fewest_labels_first() -> None:
    data = arrays(200, 60)
    data.labels[:60] = np.repeat([0, 1, 2], [36, 20, 4])
    head = fit_head(data, SCHEMA, seed=0)
    assert head is not None
    predicted = head.probabilities(data.features).argmax(axis=1)
    queue = queue_of(data, batch_size=10, audit_share=0, strategy="margin", balance="tail_first")
    served = predicted[[place.task_id - 1000 for place in queue[:10]]]
    available = int((predicted[60:] == 2).sum())
    assert available > 0
    assert (served[: min(available, 10)] == 2).all()


def test_no_reason_names_an_answer_and_there_are_at_most_eight() -> None:
    assert len(REASONS) <= 8
    assert reason_of("control", "typical", {"uncertainty": 1.0}) == "control"
    assert reason_of("batch", "random", {"uncertainty": 1.0}) == "random"
    assert reason_of("batch", "", {"uncertainty": 0.9, "disagreement": 1.0}) == "disagree"
    assert reason_of("batch", "", {"uncertainty": 0.9, "disagreement": 0.0}) == "uncertain"
    assert reason_of("batch", "", {"uncertainty": 0.1, "novelty": 0.9}) == "uncovered"
    assert reason_of("batch", "", {"uncertainty": 0.1, "novelty": 0.1}) == "informative"
    # The top fifth begins at 0.8.
    for name, code in (("uncertainty", "uncertain"), ("novelty", "uncovered"), ("conflict", "disagree")):
        assert reason_of("batch", "", {name: 0.8}) == code
        assert reason_of("batch", "", {name: 0.79}) == "informative"


@pytest.mark.parametrize(
    ("options", "labelled", "reason"),
    [
        ({"strategy": "auto"}, 0, "typical"),
        ({"strategy": "margin", "strategy_options": {"cold_start": "random"}}, 0, "random"),
        ({"strategy": "margin", "strategy_options": {"cold_start": "random"}, "balance": "tail_first"}, 0, "random"),
        ({"strategy": "coreset"}, 0, "uncovered"),
        ({"strategy": "coreset"}, 20, "uncovered"),
        ({"strategy": "kmeans"}, 20, "typical"),
        ({"strategy": "random"}, 20, "random"),
    ],
)
def test_annotators_read_how_the_batch_was_really_chosen(options: dict[str, Any], labelled: int, reason: str) -> None:
    queue = queue_of(arrays(80, labelled), **options)
    assert {place.reason for place in queue if place.role == "batch"} == {reason}


def test_every_strategy_that_looks_at_no_prediction_says_why_it_picks() -> None:
    for name in strategy_names():
        strategy = create_strategy(name)
        assert isinstance(strategy, Strategy)
        assert strategy.reason in {"", *REASONS}
        assert isinstance(strategy, LabelledStrategy) or strategy.reason


@given(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.integers()), st.dictionaries(st.text(), st.text())))
def test_whatever_the_form_sends_is_an_object_or_a_clear_refusal(sent: Any) -> None:
    try:
        assert isinstance(parse_extra_params(sent), dict)
    except OptionsInvalid as error:
        assert "extra_params" in str(error)
        assert "Write for example" in str(error)


def test_a_new_strategy_starts_with_its_own_options() -> None:
    before = change_options({}, {"strategy": "auto", "batch_size": 7}, SCHEMA).model_dump()
    after = change_options({**before, "strategy_options": {"cold_start": "random"}}, {"strategy": "badge"}, SCHEMA)
    assert (after.strategy, after.strategy_options, after.batch_size) == ("badge", {}, 7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "x"}, "choose one of"),
        ({"batch": 3}, "Unknown option 'batch'. Use: strategy,"),
        ({"audit_share": 0.9}, "audit_share"),
        ({"balance": "even"}, "balance"),
        ({"strategy_options": {"nope": 1}}, "nope"),
        ({"poll_seconds": "soon"}, "poll_seconds"),
    ],
)
def test_every_bad_option_is_named_with_its_remedy(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        change_options({}, changes, SCHEMA)


def test_a_strategy_that_does_not_suit_the_project_is_refused_when_it_is_set() -> None:
    text_only = TaskSchema.from_label_config(CONFIG.replace('<Image name="picture" value="$photo"/>', "").replace(
        'toName="picture"', 'toName="words"'))  # fmt: skip
    with pytest.raises(StrategyUnsuited, match="badge"):
        change_options({}, {"strategy": "bmmal"}, text_only)


def test_a_balance_that_does_not_suit_the_project_is_refused_when_it_is_set() -> None:
    several = TaskSchema.from_label_config(MULTI_CONFIG)
    assert several.multi_label
    with pytest.raises(StrategyUnsuited, match="tail_first"):
        change_options({}, {"balance": "pcb"}, several)
    assert change_options({}, {"balance": "tail_first"}, several).balance == "tail_first"
    assert change_options({}, {"balance": "pcb"}, SCHEMA).balance == "pcb"


WORST_FIRST = TaskSchema.from_label_config(
    """<View><Image name="image" value="$image"/><Text name="text" value="$text"/>
    <Choices name="fits" toName="image" choice="single"><Choice value="mismatch"/><Choice value="partly"/>
    <Choice value="match"/></Choices></View>"""
)


def test_which_answers_say_that_a_pair_fits_is_told_by_name_whatever_their_order() -> None:
    options = change_options({}, {"learner": "alignment", "matching": ["match"]}, WORST_FIRST)
    assert [WORST_FIRST.choices[i] for i in matching_classes(options, WORST_FIRST)] == ["match"]


@pytest.mark.parametrize("matching", [[], ["yes"], ["match", "yes"], ["mismatch", "partly", "match"]])
def test_the_alignment_learner_is_refused_until_it_knows_which_answers_fit(matching: list[str]) -> None:
    with pytest.raises(OptionsInvalid, match=r'some of \["mismatch", "partly", "match"\], not all'):
        change_options({}, {"learner": "alignment", "matching": matching}, WORST_FIRST)
