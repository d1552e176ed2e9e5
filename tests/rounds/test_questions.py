"""Which questions a pairing round asks, without Label Studio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.errors import ConfigurationError, OptionsInvalid
from backend.labelstudio.schema import TaskSchema
from backend.learners.projection import ProjectionHead
from backend.rounds.creating import TEMPLATES
from backend.rounds.options import ProjectOptions, change_options
from backend.rounds.pairing.choosing import Choice, PairingArrays, candidates_shown, choose_questions
from backend.rounds.pairing.settling import settle
from backend.rounds.reasons import PAIR_REASONS
from backend.store.tables import PairQueryRow

BOTH = ("image", "text")
FIRST_TEXT = 1000


def pools(count: int, state: str = "pool") -> PairingArrays:
    """Images 0.. and texts 1000.. in one space; number n belongs to 1000 + n."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(count, 16))
    features, numbers = {}, {}
    for modality, first in (("image", 0), ("text", FIRST_TEXT)):
        rows = truth + 0.3 * rng.normal(size=truth.shape)
        features[modality] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        numbers[modality] = np.arange(first, first + count)
    return PairingArrays(numbers, features, {m: np.full(count, state) for m in BOTH})


def answered(item: int, partner: int = 0, answer: str = "pick", **fields: Any) -> PairQueryRow:
    given = {
        "key": f"1/{fields.get('purpose', 'query')}/{item}",
        "modality": "image" if item < FIRST_TEXT else "text",
        "candidates": [partner] if partner else [],
        "similarities": [0.5],
        "purpose": "query",
        "round_number": 1,
        "answered_at": str(item),
    }
    return PairQueryRow(
        project_id=1, task_id=item + 1, item=item, partner=partner, answer=answer, **{**given, **fields}
    )


def choose(
    arrays: PairingArrays, asked: list[PairQueryRow], count: int = 6, directions: Any = BOTH, **options: Any
) -> Choice:
    given = ProjectOptions(strategy=options.pop("strategy", "three_step"), **options)
    settled = settle(asked, {}, 2, one_to_one=given.one_to_one)
    head = ProjectionHead.identity(16)
    return choose_questions(arrays, head, settled, asked, given, directions, count, seed=0)


def test_a_batch_has_its_size_its_candidates_and_a_sentence_for_each_reason() -> None:
    choice = choose(pools(40), [], candidates=5)
    assert len(choice.questions) == 6
    for question in choice.questions:
        assert len(question.candidates) == 5
        assert question.similarities == sorted(question.similarities, reverse=True)
        assert question.why in PAIR_REASONS
        assert all((candidate >= FIRST_TEXT) == (question.modality == "image") for candidate in question.candidates)


def test_paired_open_and_resting_items_are_not_asked_about_and_paired_ones_not_offered() -> None:
    asked = [
        answered(0, FIRST_TEXT),
        answered(1, answer="open"),
        answered(2, answer="unsure"),
        answered(3, answer="skipped"),
    ]
    choice = choose(pools(12), asked, count=12, directions=("image",), audit_share=0.0)
    assert {q.item for q in choice.questions} == set(range(4, 12))
    assert all(FIRST_TEXT not in q.candidates for q in choice.questions)


def test_candidates_that_were_refused_are_not_shown_to_the_item_again() -> None:
    first = choose(pools(20), [], count=20, directions=("image",), audit_share=0.0).questions[0]
    refused = answered(first.item, answer="none", candidates=first.candidates, round_number=-5)
    again = choose(pools(20), [refused], count=20, directions=("image",), audit_share=0.0)
    [question] = [q for q in again.questions if q.item == first.item]
    assert len(question.candidates) == 8
    assert not set(question.candidates) & set(first.candidates)


def play(arrays: PairingArrays, strategy: str, count: int, has_mate: int) -> tuple[list[PairQueryRow], list[int]]:
    """Images are asked about and answered with the truth until nothing is asked: the questions, how many a round."""
    asked: list[PairQueryRow] = []
    sizes: list[int] = []
    given = ProjectOptions(strategy=strategy, batch_size=count, audit_share=0.1)
    while not sizes or sizes[-1]:
        number = len(sizes) + 1
        settled = settle(asked, {}, number)
        chosen = choose_questions(
            arrays, ProjectionHead.identity(16), settled, asked, given, ("image",), count, number
        )
        for q in chosen.questions:
            mate = FIRST_TEXT + q.item if q.item < has_mate else 0
            found = mate in q.candidates
            told = {"candidates": q.candidates, "round_number": number, "key": f"{number}/{q.item}"}
            asked.append(answered(q.item, mate if found else 0, "pick" if found else "none", **told))
        sizes.append(len(chosen.questions))
    return asked, sizes


@pytest.mark.parametrize("strategy", ["three_step", "hard_negative", "pair_margin"])
def test_items_without_a_counterpart_take_no_place_for_ever_and_stop_no_project(strategy: str) -> None:
    everything = pools(60)
    arrays = PairingArrays(
        {"image": everything.numbers["image"], "text": everything.numbers["text"][:24]},
        {"image": everything.features["image"], "text": everything.features["text"][:24]},
        {"image": everything.states["image"], "text": everything.states["text"][:24]},
    )
    asked, sizes = play(arrays, strategy, 8, has_mate=24)
    assert len(settle(asked, {}, 99).pairs) == 24
    assert set(sizes[:8]) == {8}
    assert all(q.candidates for q in asked)


def test_after_more_refusals_than_a_strategy_has_to_spare_the_next_best_candidates_are_shown() -> None:
    arrays = pools(60)
    refused = answered(0, answer="none", candidates=[FIRST_TEXT + n for n in range(55)], round_number=-5)
    everybody = choose(arrays, [refused], count=60, directions=("image",), audit_share=0.0).questions
    [question] = [q for q in everybody if q.item == 0]
    assert set(question.candidates) == {FIRST_TEXT + n for n in range(55, 60)}
    assert question.similarities == sorted(question.similarities, reverse=True)


@pytest.mark.parametrize("strategy", ["three_step", "pair_random"])
def test_who_was_refused_every_candidate_is_not_asked_about_and_drawn_for_no_control(strategy: str) -> None:
    arrays = pools(20)
    everything = [int(n) for n in arrays.numbers["text"]]
    vain = [answered(n, answer="none", candidates=everything, round_number=-9) for n in range(15)]
    for seed in range(5):
        given = ProjectOptions(strategy=strategy, audit_share=0.5)
        settled, head = settle(vain, {}, 2), ProjectionHead.identity(16)
        choice = choose_questions(arrays, head, settled, vain, given, ("image",), 5, seed)
        assert {q.item for q in choice.questions} == set(range(15, 20))


def alike(count: int, equal: int) -> PairingArrays:
    """Pools whose first ``equal`` texts have the same words."""
    arrays = pools(count)
    contents = np.arange(count)
    contents[:equal] = 0
    arrays.features["text"][:equal] = arrays.features["text"][0]
    return PairingArrays(arrays.numbers, arrays.features, arrays.states, {"text": contents})


def test_each_content_is_offered_once_and_equal_ones_make_no_narrow_margin() -> None:
    choice = choose(alike(40, equal=10), [], count=10, directions=("image",), strategy="pair_margin", audit_share=0.0)
    of_one_content = [sum(c < FIRST_TEXT + 10 for c in q.candidates) for q in choice.questions]
    assert max(of_one_content) == 1
    assert all(len(q.candidates) == 8 for q in choice.questions)
    # Every image is closest to some text, and the equal ones are closest to few.
    assert all(q.figures["margin"] > 0 for q in choice.questions)


def test_a_content_that_was_refused_is_not_offered_by_another_name_and_one_that_is_taken_is() -> None:
    arrays = alike(20, equal=10)
    everything = [FIRST_TEXT, *range(FIRST_TEXT + 10, FIRST_TEXT + 20)]
    vain = answered(0, answer="none", candidates=everything, round_number=-9)
    taken = answered(1, FIRST_TEXT)
    choice = choose(arrays, [vain, taken], count=20, directions=("image",), audit_share=0.0)
    assert {q.item for q in choice.questions} == set(range(2, 20))
    [shown] = {c for q in choice.questions for c in q.candidates if c < FIRST_TEXT + 10}
    assert shown == FIRST_TEXT + 1


def test_a_contradiction_is_asked_first_of_the_contested_item_or_again_of_the_later_one() -> None:
    claims = [answered(0, FIRST_TEXT), answered(1, FIRST_TEXT, candidates=[FIRST_TEXT, FIRST_TEXT + 1])]
    contested = choose(pools(12), claims).questions[0]
    assert (contested.purpose, contested.item, set(contested.candidates)) == ("conflict", FIRST_TEXT, {0, 1})
    later = choose(pools(12), claims, directions=("image",)).questions[0]
    assert (later.purpose, later.item, later.candidates) == ("conflict", 1, [FIRST_TEXT, FIRST_TEXT + 1])
    settled = [*claims, answered(FIRST_TEXT, answer="none", purpose="conflict", candidates=[0, 1])]
    assert all(q.purpose != "conflict" for q in choose(pools(12), settled).questions)


def test_however_many_claim_an_item_it_is_asked_once_with_as_many_of_them_as_a_form_shows() -> None:
    claims = [answered(n, FIRST_TEXT, answered_at=f"2026-01-01T10:00:{n:02d}") for n in range(10)]
    for shown in (3, 8, 10):
        conflicts = [q for q in choose(pools(12), claims[:shown]).questions if q.purpose == "conflict"]
        assert [(q.item, set(q.candidates)) for q in conflicts] == [(FIRST_TEXT, set(range(min(shown, 8))))]


def test_control_questions_are_marked_and_only_they_say_how_many_candidates_are_enough() -> None:
    choice = choose(pools(60), [], count=40, audit_share=0.5)
    controls = [q for q in choice.questions if q.purpose == "audit"]
    assert 15 <= len(controls) <= 25
    assert all(q.why == "control" for q in controls)
    options = ProjectOptions(coverage=0.8)
    found_second = [
        answered(n, 2000, purpose="audit", candidates=[2001, 2000], similarities=[0.5, 0.4]) for n in range(20)
    ]
    found_last = [answered(n, 2000, candidates=[2001] * 7 + [2000], similarities=[0.5] * 8) for n in range(20, 60)]
    assert candidates_shown(found_second + found_last, options) == 2
    assert candidates_shown(found_last, options) == 8
    several = [
        answered(n, 2000, purpose="audit", candidates=[2001, 2002, 2000], further_partners=[2002]) for n in range(20)
    ]
    assert candidates_shown(several, options) == 2
    assert candidates_shown(found_second, ProjectOptions(candidates=5)) == 5


def test_options_that_make_no_sense_in_a_pairing_project_are_refused() -> None:
    both = TaskSchema.from_label_config((TEMPLATES / "image_text_pairing" / "config.xml").read_text())
    images = TaskSchema.from_label_config((TEMPLATES / "image_to_captions" / "config.xml").read_text())
    many = TaskSchema.from_label_config((TEMPLATES / "many_to_many_pairing" / "config.xml").read_text())
    assert change_options({}, {}, both).strategy == "pair_likely"
    assert (change_options({}, {}, both).one_to_one, change_options({}, {}, many).one_to_one) == (True, False)
    for schema, changes, words in (
        (both, {"strategy": "auto"}, "pair_likely"),
        (both, {"candidates": 40}, "candidates"),
        (images, {"strategy_options": {"directions": "text"}}, "image_text_pairing"),
        (both, {"strategy_options": {"speed": 3}}, "speed"),
        (many, {"one_to_one": True}, "single-radio"),
    ):
        with pytest.raises((ConfigurationError, OptionsInvalid), match=words):
            change_options({}, changes, schema)
