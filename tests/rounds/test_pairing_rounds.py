"""How rounds of a pairing project follow one another: what wakes it, what puts it to rest, what a stream keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.rounds.pairing.triggers import RETRY_SECONDS
from backend.store import pair_queries
from tests.rounds.pairing_world import PairingRounds

IMAGES = {"directions": "image"}


def rounds_until_rest(world: PairingRounds, most: int = 40) -> None:
    """Run what is due and answer everything with the truth."""
    ran: list[str] = []
    while (why := world.due()) and len(ran) < most:
        ran.append(why)
        world.run(why)
        for question in world.questions():
            world.answer(question)
    assert not why, ran


def test_a_project_whose_last_question_stays_open_comes_to_rest_and_its_queue_stays(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=6, strategy_options=IMAGES)
    world.arrive(6, state="pool")
    assert world.run(world.due()).status == "published"
    [left, *others] = world.questions()
    for question in others:
        world.answer(question)
    assert "5 of 6 questions" in world.due()
    queue = dict(world.label_studio.published)
    assert world.run(world.due()).status == "empty"
    assert world.due() == ""
    assert (world.label_studio.published, [q.key for q in world.questions()]) == (queue, [left.key])
    world.answer(left)
    assert world.due() == "answers changed"
    world.run(world.due())
    assert world.due() == ""


def test_the_queue_is_published_again_where_it_lacks_a_question_that_is_open_once_more(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=2, strategy_options=IMAGES, refresh_share=1.0)
    world.arrive(4, state="pool")
    rounds_until_rest(world)
    first = world.questions("pick")[0]
    world.answer(first, "open")
    assert world.due() == "answers changed"
    assert world.run(world.due()).status == "published"
    assert [q.key for q in world.questions()] == [first.key]
    assert world.due() == ""


def test_rests_end_where_nothing_else_is_left_until_every_candidate_was_shown(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=6, candidates=2, strategy_options=IMAGES)
    world.arrive(6, state="pool")
    rounds_until_rest(world)
    assert len(world.questions("pick")) == 6
    assert not world.questions()


def test_who_can_tell_nothing_is_asked_a_few_times_and_then_left_alone(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=4, strategy_options=IMAGES)
    world.arrive(4, state="pool")
    while (why := world.due()) and len(world.questions("unsure")) < 100:
        world.run(why)
        for question in world.questions():
            world.answer(question, "unsure")
    assert len(world.questions("unsure")) == 4 * 4
    world.arrive(1, state="pool")
    assert world.due() == "new items are embedded"


def test_a_corrected_answer_wakes_a_project_at_rest_though_their_number_is_the_same(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=6, strategy_options=IMAGES)
    world.arrive(6, state="pool")
    rounds_until_rest(world)
    one, two = world.questions("pick")[:2]
    world.answer(one, "pick", two.partner)
    assert world.due() == "answers changed"
    world.run(world.due())
    assert "conflict" in {q.purpose for q in world.questions()}
    assert world.due() == ""


def test_in_a_stream_a_contradiction_is_asked_though_nothing_arrives(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=2, stream_buffer=8, strategy_options=IMAGES)
    world.arrive(4)
    world.run(world.due())
    one, two = world.questions()
    world.answer(one, "pick", one.candidates[0])
    world.answer(two, "none")
    assert world.due() == ""
    world.answer(two, "pick", one.candidates[0])
    assert world.due() == "answers contradict one another"
    assert world.run(world.due()).status == "published"
    assert [q.purpose for q in world.questions()] == ["conflict"]
    assert world.due() == ""


def test_a_round_that_somebody_asks_for_lets_go_of_nothing_that_waits_in_a_stream(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=2, stream_buffer=30, stream_keep=6)
    world.arrive(6)
    assert world.due() == ""
    assert world.run("options changed").status == "empty"
    assert (world.states(), world.questions()) == ({"buffer": 12}, [])
    world.arrive(9)
    world.run(world.due())
    assert (world.states(), len(world.questions())) == ({"buffer": 6, "dropped": 24}, 2)


def test_what_arrives_while_label_studio_is_down_is_not_dropped_by_the_round_that_makes_up_for_it(
    tmp_path: Path,
) -> None:
    world = PairingRounds(tmp_path, batch_size=2, stream_buffer=12, stream_keep=6)
    world.arrive(6)
    world.label_studio.down = True
    assert world.run(world.due()).status == "failed"
    assert world.states() == {"buffer": 6, "dropped": 6}
    world.arrive(5)
    world.label_studio.down = False
    assert "cut off" in world.due()
    assert world.run(world.due()).status == "published"
    assert world.states() == {"buffer": 16, "dropped": 6}
    assert "the buffer of the stream is full" in world.due()
    world.run(world.due())
    assert world.states() == {"buffer": 10, "dropped": 12}
    assert len(world.questions()) == 4


def test_contradictions_take_no_places_of_a_full_buffer(tmp_path: Path) -> None:
    world = PairingRounds(tmp_path, batch_size=2, stream_buffer=8, strategy_options=IMAGES)
    world.arrive(4)
    world.run(world.due())
    one, two = world.questions()
    world.arrive(4)
    for question in (one, two):
        world.answer(question, "pick", one.candidates[0])
    world.run("the buffer of the stream is full")
    assert sorted(q.purpose for q in world.questions()) == ["conflict", "query", "query"]


@pytest.mark.parametrize("keep", [8, 100])
def test_a_full_buffer_lets_go_of_something_however_many_items_it_is_to_keep(tmp_path: Path, keep: int) -> None:
    world = PairingRounds(tmp_path, batch_size=1, stream_buffer=8, stream_keep=keep)
    world.arrive(4)
    world.run(world.due())
    assert world.states()["buffer"] == 7
    assert world.due() == ""


def test_questions_that_could_not_be_shown_are_tried_again_though_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = PairingRounds(tmp_path, batch_size=6, strategy_options=IMAGES)
    world.arrive(6, state="pool")
    rounds_until_rest(world)
    pair_queries.choose(
        world.store, 1, [{"key": "1/unshown", "round_number": 1, "modality": "image", "item": 1, "candidates": [9]}]
    )
    assert world.due() == ""
    now = world.store.clock()
    monkeypatch.setattr(world.store, "clock", lambda: now + RETRY_SECONDS)
    assert "could not be shown" in world.due()
