"""Answers become pairs, whatever their order; contradictions wait for a person."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.rounds.pairing.choosing import PairingArrays, conflict_questions
from backend.rounds.pairing.settling import Settled, contested_by, settle
from backend.store.tables import PairQueryRow


def question(key: str, item: int, partner: int = 0, **fields: Any) -> PairQueryRow:
    """An answered question about an image (items below 100), answered in the order of the keys."""
    given = {
        "modality": "image" if item < 100 else "text",
        "candidates": [partner],
        "similarities": [0.5],
        "answer": "pick",
        "purpose": "query",
        "round_number": 1,
        "answered_at": key,
    }
    return PairQueryRow(project_id=1, key=key, item=item, partner=partner, **{**given, **fields})


def test_a_pick_is_a_pair_whichever_side_was_asked() -> None:
    found = settle([question("a", 1, 101), question("b", 102, 2)], {}, 2)
    assert list(found.pairs) == [(1, 101), (2, 102)]
    assert found.paired == {1, 2, 101, 102}


def test_a_partner_already_taken_is_a_conflict_and_no_overwrite() -> None:
    found = settle([question("a", 1, 101), question("b", 2, 101)], {}, 2)
    assert list(found.pairs) == [(1, 101)]
    [conflict] = found.conflicts
    assert (conflict.item, [(c.item, c.question.key) for c in conflict.claims]) == (101, [(1, "a"), (2, "b")])
    assert 2 in found.resting


def test_who_answered_first_is_told_by_the_time_and_not_by_its_spelling() -> None:
    # Label Studio drops the fraction of a whole second, and "." sorts before "Z".
    earlier, later = "2026-01-01T10:00:00Z", "2026-01-01T10:00:00.500000Z"
    assert later < earlier
    asked = [question("a", 1, 101, answered_at=later), question("b", 2, 101, answered_at=earlier)]
    assert list(settle(asked, {}, 2).pairs) == [(2, 101)]
    elsewhere = [question("a", 1, 101, answered_at="2026-01-01T11:00:00+02:00"), *asked[1:]]
    assert list(settle(elsewhere, {}, 2).pairs) == [(1, 101)]


def test_a_conflict_that_nobody_decided_is_asked_again_after_a_rest() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101)]

    def waits(answer: str, round_number: int, task_id: int = 7) -> bool:
        verdict = question("c", 101, answer=answer, purpose="conflict", round_number=3, task_id=task_id)
        [conflict] = settle([*claims, verdict], {}, round_number).conflicts
        return conflict.waits

    assert not settle(claims, {}, 3).conflicts[0].waits
    for answer in ("skipped", "tie", "unsure", "unreadable"):
        assert [waits(answer, n) for n in (4, 5, 6, 7)] == [True, True, False, False]
    assert waits("open", 50)
    assert not waits("deleted", 4)
    assert not waits("withdrawn", 4)
    assert waits("unreadable", 50, task_id=0)


def test_many_to_many_knows_no_conflict() -> None:
    found = settle([question("a", 1, 101), question("b", 2, 101)], {}, 2, one_to_one=False)
    assert list(found.pairs) == [(1, 101), (2, 101)]
    assert not found.conflicts


def test_all_that_was_ticked_is_paired_with_many_to_many_and_the_best_alone_otherwise() -> None:
    asked = [question("a", 1, 103, further_partners=[101, 102]), question("b", 102, 2)]
    found = settle(asked, {}, 2, one_to_one=False)
    assert list(found.pairs) == [(1, 103), (1, 101), (1, 102), (2, 102)]
    assert not found.conflicts
    assert list(settle(asked, {}, 2).pairs) == [(1, 103), (2, 102)]


def verdict(key: str, item: int, partner: int = 0, *, among: Sequence[int], **fields: Any) -> PairQueryRow:
    """The answered question of a conflict: which of ``among`` the contested item belongs to."""
    given = {"purpose": "conflict", "candidates": list(among), "answer": "pick" if partner else "none"}
    return question(key, item, partner, **{**given, **fields})


def test_the_contested_item_decides_among_those_that_were_shown() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101), question("c", 3, 101)]
    [conflict] = settle(claims, {}, 2).conflicts
    assert [claim.item for claim in conflict.claims] == [1, 2, 3]
    for partner in (1, 2, 3):
        found = settle([*claims, verdict("v", 101, partner, among=[1, 2, 3])], {}, 3)
        assert (list(found.pairs), found.conflicts, found.resting) == ([(partner, 101)], [], set())
        assert found.refused == {101: {1, 2, 3} - {partner}} | {n: {101} for n in (1, 2, 3) if n != partner}
    neither = settle([*claims, verdict("v", 101, among=[1, 2, 3])], {}, 3)
    assert (list(neither.pairs), neither.conflicts) == ([], [])


def test_who_was_not_shown_to_the_verdict_or_claims_after_it_contests_again() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101)]
    for late in (question("a2", 3, 101), question("z", 3, 101)):
        found = settle([*claims, late, verdict("v", 101, 2, among=[1, 2])], {}, 3)
        [conflict] = found.conflicts
        assert {claim.item for claim in conflict.claims} == {2, 3}
        assert (conflict.waits, len(found.pairs)) == (False, 1)
        again = settle([*claims, late, verdict("v", 101, 2, among=[1, 2]), verdict("w", 101, 3, among=[2, 3])], {}, 4)
        assert (list(again.pairs), again.conflicts) == ([(3, 101)], [])


def test_what_a_verdict_chose_is_contested_where_another_pair_holds_it() -> None:
    asked = [question("a", 1, 101), question("a2", 105, 2), question("b", 2, 101)]
    found = settle([*asked, verdict("v", 101, 2, among=[1, 2])], {}, 3)
    [conflict] = found.conflicts
    assert (list(found.pairs), conflict.item, [c.item for c in conflict.claims]) == ([(2, 105)], 2, [105, 101])
    decided = settle([*asked, verdict("v", 101, 2, among=[1, 2]), verdict("w", 2, 101, among=[101, 105])], {}, 4)
    assert (list(decided.pairs), decided.conflicts) == ([(2, 101)], [])


def test_a_caption_written_into_a_verdict_is_the_pair_and_without_its_text_it_is_none_of_these() -> None:
    claims = [question("a", 101, 1), question("b", 102, 1)]
    answer = verdict("v", 1, among=[101, 102], answer="written")
    assert list(settle([*claims, answer], {"v": 150}, 3).pairs) == [(1, 150)]
    assert (settle([*claims, answer], {}, 3).pairs, settle([*claims, answer], {}, 3).conflicts) == ({}, [])


def test_where_only_a_later_question_can_be_asked_again_its_second_answer_decides_against_the_holder() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101), question("c", 3, 101)]
    held = {"figures": contested_by(101, 1)}
    again = settle([*claims, verdict("v", 2, 101, among=[101, 102], **held)], {}, 3)
    assert list(again.pairs) == [(2, 101)]
    [left] = again.conflicts
    assert [claim.item for claim in left.claims] == [2, 3]
    corrected = settle([*claims, verdict("v", 2, 102, among=[101, 102], **held)], {}, 3)
    assert list(corrected.pairs) == [(1, 101), (2, 102)]
    withdrawn = settle([*claims[:2], verdict("v", 2, among=[101, 102], **held)], {}, 3)
    assert (list(withdrawn.pairs), withdrawn.conflicts) == ([(1, 101)], [])


def test_a_changed_answer_takes_its_pair_and_the_conflict_back() -> None:
    assert settle([question("a", 1, 102), question("b", 2, 101)], {}, 2).conflicts == []
    gone = settle([question("a", 1, answer="deleted"), question("b", 2, 101)], {}, 2)
    assert list(gone.pairs) == [(2, 101)]


def test_a_written_caption_is_paired_with_its_image() -> None:
    found = settle([question("a", 1, answer="written")], {"a": 150}, 2)
    assert list(found.pairs) == [(1, 150)]


def test_cannot_tell_rests_for_one_round_and_none_of_these_until_the_guesses_are_new() -> None:
    asked = [
        question("a", 1, answer="unsure", round_number=4),
        question("b", 2, answer="none", round_number=4, candidates=[101, 102]),
    ]
    assert settle(asked, {}, 5).resting == {1, 2}
    assert settle(asked, {}, 6).resting == {2}
    assert settle(asked, {}, 7).resting == set()
    assert settle(asked, {}, 7).refused == {2: {101, 102}}


def test_an_item_rests_twice_as_long_each_time_it_was_asked_about_in_vain() -> None:
    def rest(answer: str, *asked_in: int) -> int:
        asked = [question(str(n), 1, answer=answer, round_number=n) for n in asked_in]
        return settle(asked, {}, max(asked_in) + 1).rests[1] - max(asked_in)

    assert [rest("none", *range(1, n)) for n in (2, 3, 4, 5, 6)] == [3, 6, 12, 12, 12]
    assert [rest("unsure", *range(1, n)) for n in (2, 3, 4, 5)] == [2, 4, 8, 16]
    claims = [question("a", 1, 101), question("b", 2, 101)]
    verdicts = [question(f"c{n}", 101, answer="tie", purpose="conflict", round_number=n, task_id=7) for n in (3, 6)]
    assert settle([*claims, *verdicts], {}, 7).rests == {101: 12}
    assert [settle([*claims, *verdicts], {}, n).conflicts[0].waits for n in (11, 12)] == [True, False]


def test_a_pick_of_an_item_that_is_taken_is_read_as_another_one_of_equal_content() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101), question("c", 3, 101)]
    twins = {101: [102], 102: [101]}
    found = settle(claims, {}, 2, twins=twins)
    assert list(found.pairs) == [(1, 101), (2, 102)]
    [conflict] = found.conflicts
    assert [claim.question.key for claim in conflict.claims] == ["a", "c"]


def test_what_an_equal_item_said_already_is_no_contradiction() -> None:
    found = settle([question("a", 1, 101), question("b", 102, 1)], {}, 2, twins={101: [102], 102: [101]})
    assert (list(found.pairs), found.conflicts) == ([(1, 101)], [])
    assert 102 not in found.resting


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.integers(101, 104), st.sampled_from(["pick", "none", "unsure", "open", "deleted"])
        ),
        max_size=5,
    )
)
def test_one_to_one_holds_and_the_order_of_reading_does_not_matter(answers: list[tuple[int, int, str]]) -> None:
    asked = [
        question(f"k{n}", item, partner if answer == "pick" else 0, answer=answer)
        for n, (item, partner, answer) in enumerate(answers)
    ]
    found = settle(asked, {}, 3)
    members = list(itertools.chain.from_iterable(found.pairs))
    assert len(members) == len(set(members))
    for order in itertools.permutations(asked):
        assert settle(order, {}, 3).pairs == found.pairs


CLAIMS = st.lists(st.tuples(st.integers(1, 4), st.integers(101, 104), st.booleans()), max_size=9)


@settings(deadline=None)
@given(
    CLAIMS,
    CLAIMS,
    st.lists(st.integers(0, 5)),
    st.sampled_from([("image", "text"), ("image",)]),
    st.sampled_from([{}, {101: [102], 102: [101]}]),
)
def test_no_answer_is_lost_and_whatever_is_decided_the_conflicts_come_to_an_end(
    claims: list[tuple[int, int, bool]],
    late: list[tuple[int, int, bool]],
    choices: list[int],
    directions: tuple[str, ...],
    twins: dict[int, list[int]],
) -> None:
    arrays = PairingArrays(
        {"image": np.arange(1, 5), "text": np.arange(101, 105)},
        {m: np.ones((4, 2), np.float16) for m in ("image", "text")},
        {m: np.full(4, "pool") for m in ("image", "text")},
    )
    joint = {m: rows.astype(np.float32) for m, rows in arrays.features.items()}
    asked: list[PairQueryRow] = []

    def moment() -> str:
        return f"2026-01-01T10:{len(asked) // 60:02d}:{len(asked) % 60:02d}"

    def answer(given: list[tuple[int, int, bool]]) -> None:
        for image, text, of_text in given:
            item, partner = (text, image) if of_text and "text" in directions else (image, text)
            asked.append(question(f"{len(asked):03d}", item, partner, answered_at=moment()))

    answer(claims)
    for number in range(2, 60):
        found = settle(asked, {}, number, twins=twins)
        assert len(found.paired) == 2 * len(found.pairs)
        _check_no_answer_is_lost(asked, found, 102 if twins else 0)
        questions = conflict_questions(arrays, joint, found, directions)
        assert bool(questions) == bool(found.conflicts)
        if not questions and not late:
            break
        # Some are answered after the questions about the conflicts were chosen, and before those are answered.
        answer(late)
        late = []
        for one in questions:
            choice = choices.pop() if choices else 1
            partner = one.candidates[choice] if choice < len(one.candidates) else 0
            fields = {"figures": one.figures, "round_number": number, "answered_at": moment()}
            asked.append(verdict(f"{len(asked):03d}", one.item, partner, among=one.candidates, **fields))
    else:
        pytest.fail(f"still asking: {questions}")


def _check_no_answer_is_lost(asked: list[PairQueryRow], found: Settled, twin_of_101: int) -> None:
    def pair(one: float, two: float) -> frozenset[int]:
        return frozenset(101 if n == twin_of_101 else int(n) for n in (one, two))

    known = {pair(*each) for each in found.pairs}
    known |= {pair(c.item, claim.item) for c in found.conflicts for claim in c.claims}
    for verdict in asked:
        if verdict.purpose == "conflict":
            known |= {pair(verdict.item, shown) for shown in verdict.candidates if shown != verdict.partner}
            if verdict.figures and verdict.figures["contested"] == verdict.partner:
                known.add(pair(verdict.figures["contested"], verdict.figures["held_by"]))
    assert {pair(q.item, q.partner) for q in asked if q.partner} <= known
