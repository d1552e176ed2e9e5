"""Items of a stream that are judged one by one, without Label Studio."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.learners.projection import ProjectionHead
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.arriving import Arrival, judge_arrivals
from backend.rounds.pairing.choosing import PairingArrays
from backend.rounds.pairing.settling import settle
from backend.store.tables import PairQueryRow
from tests.rounds.test_questions import BOTH, FIRST_TEXT, answered, pools


def judge(
    arrays: PairingArrays, asked: list[PairQueryRow], stored: dict[str, Any] | None = None, **options: Any
) -> Arrival:
    given = ProjectOptions(strategy="three_step", stream_mode="item", **{"audit_share": 0.0, **options})
    settled = settle(asked, {}, 2, one_to_one=given.one_to_one)
    directions = options.pop("directions", BOTH)
    head = ProjectionHead.identity(16)
    return judge_arrivals(arrays, head, settled, asked, given, directions, 3, stored or {})


def waiting(count: int, arrived: int) -> PairingArrays:
    """So many of each modality, of which the last ``arrived`` wait."""
    arrays = pools(count)
    states = np.array(["judged"] * (count - arrived) + ["buffer"] * arrived)
    return PairingArrays(arrays.numbers, arrays.features, {m: states.copy() for m in BOTH})


def pair_up(count: int) -> list[PairQueryRow]:
    return [answered(n, FIRST_TEXT + n) for n in range(count)]


def test_about_the_wanted_share_of_what_arrives_is_asked_about_and_all_is_judged() -> None:
    arrays = waiting(500, 480)
    found = judge(arrays, pair_up(20), stream_rate=0.1)
    assert len(found.judged) == 960
    assert 0.05 < len(found.choice.questions) / 960 < 0.15
    for question in found.choice.questions:
        assert question.item in found.judged and len(question.candidates) == 8
        assert question.why in ("random", "uncovered")
    assert {q.why for q in found.choice.questions} == {"random", "uncovered"}


def test_every_rate_and_control_share_that_the_options_accept_is_one_a_round_can_keep() -> None:
    arrays, asked = waiting(4, 2), pair_up(2)
    for share in (0.0, 0.1, 0.3):
        stored: dict[str, Any] = {}
        for percent in range(1, 101):
            found = judge(arrays, asked, stored, stream_rate=percent / 100, audit_share=share)
            assert len(found.judged) == 4
            stored = found.stream


def test_after_the_warm_up_far_items_with_narrow_margins_are_the_ones_asked_about() -> None:
    found = judge(waiting(400, 380), pair_up(20), stream_rate=0.1)
    told = [q.figures for q in found.choice.questions if q.why == "uncovered"]
    assert np.median([f["margin"] for f in told]) < np.median([q.figures["margin"] for q in found.choice.questions])
    assert min(f["cover"] for f in told) > 0


def test_the_controller_goes_on_where_it_stood() -> None:
    whole = judge(waiting(120, 100), pair_up(20), stream_rate=0.2)
    early, late = waiting(120, 100), waiting(120, 50)
    for states in early.states.values():
        states[70:] = "absent"
    first = judge(early, pair_up(20), stream_rate=0.2)
    assert first.stream["recent_rate"] != 0.2
    second = judge(late, pair_up(20), first.stream, stream_rate=0.2)
    assert first.judged | second.judged == whole.judged
    values = second.stream["covers"]["image"]
    assert values[:50] == first.stream["covers"]["image"][:50]


def test_a_new_rate_keeps_what_is_known_of_recent_items() -> None:
    first = judge(waiting(120, 100), pair_up(20), stream_rate=0.2)
    again = judge(waiting(130, 10), pair_up(20), first.stream, stream_rate=0.05)
    assert again.stream["rate"] == 0.05
    assert len(again.stream["covers"]["image"]) == 110


def test_without_two_candidates_items_wait_and_without_pairs_they_do_not() -> None:
    arrays = waiting(10, 10)
    assert judge(arrays, [], stream_rate=1.0).judged == {*range(10), *range(FIRST_TEXT, FIRST_TEXT + 10)}
    lonely = PairingArrays(
        arrays.numbers, arrays.features, {"image": arrays.states["image"], "text": np.array(["dropped"] * 10)}
    )
    assert judge(lonely, [], stream_rate=1.0).judged == set()


def test_control_questions_are_a_random_part_of_the_rate() -> None:
    found = judge(waiting(400, 380), pair_up(20), stream_rate=0.2, audit_share=0.5)
    controls = [q for q in found.choice.questions if q.purpose == "audit"]
    assert 0.05 < len(controls) / 760 < 0.15
    assert {q.why for q in controls} == {"control"}


def test_older_items_leave_but_for_pairs_and_the_latest() -> None:
    arrays = waiting(30, 10)
    found = judge(arrays, pair_up(3), stream_rate=0.1, stream_buffer=24)
    ordered = sorted(n for m in BOTH for n in arrays.numbers[m].tolist())
    paired = {0, 1, 2, FIRST_TEXT, FIRST_TEXT + 1, FIRST_TEXT + 2}
    assert found.dropped == set(ordered[:-24]) - paired
    assert judge(arrays, pair_up(3), stream_rate=0.1).dropped == set()


def test_what_is_asked_about_already_is_not_asked_again() -> None:
    asked = [*pair_up(20), answered(25, answer="open"), answered(26, answer="skipped")]
    found = judge(waiting(40, 20), asked, stream_rate=1.0)
    assert {25, 26} <= found.judged
    assert not {25, 26} & {q.item for q in found.choice.questions}
