"""Answers become pairs, whatever their order; contradictions wait for a person."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backend.rounds.pairing.settling import settle
from backend.store.tables import PairQueryRow


def question(key: str, item: int, partner: int = 0, **fields: Any) -> PairQueryRow:
    """An answered question about an image (items below 100), answered in the order of the keys."""
    given = {
        "modality": "image" if item < 100 else "text",
        "candidates": [partner],
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
    assert (conflict.item, conflict.earlier.key, conflict.later.key) == (101, "a", "b")
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


def test_the_contested_item_decides_between_the_two() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101)]
    for partner, pairs in ((1, [(1, 101)]), (2, [(2, 101)])):
        found = settle([*claims, question("c", 101, partner, purpose="conflict")], {}, 3)
        assert (list(found.pairs), found.conflicts) == (pairs, [])
    neither = settle([*claims, question("c", 101, answer="none", purpose="conflict")], {}, 3)
    assert (list(neither.pairs), neither.conflicts) == ([], [])


def test_where_only_the_later_question_can_be_asked_again_its_second_answer_decides() -> None:
    claims = [question("a", 1, 101), question("b", 2, 101)]
    again = settle([*claims, question("c", 2, 101, purpose="conflict")], {}, 3)
    assert list(again.pairs) == [(2, 101)]
    corrected = settle([*claims, question("c", 2, 102, purpose="conflict")], {}, 3)
    assert list(corrected.pairs) == [(1, 101), (2, 102)]
    withdrawn = settle([*claims, question("c", 2, answer="none", purpose="conflict")], {}, 3)
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
    assert conflict.later.key == "c"


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
