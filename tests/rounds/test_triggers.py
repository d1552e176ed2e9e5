"""When a round is due, and when it is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from backend.rounds.options import ProjectOptions
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.rounds.triggers import FIRST_SAMPLE, request_if_due
from backend.settings import Settings
from backend.store import projects, rounds, tasks


class World:
    """A project with tasks that are embedded, answered and queued as a test says."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.services = Services(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make"))
        self.store, self.encoder = self.services.store, self.services.encoder_id
        chosen = ProjectOptions(**{"batch_size": 10, **options}).model_dump()
        projects.remember(self.store, 1, state="attached", options=chosen, watermark="2026-01-01T00:00:00+00:00")

    def embed(self, *task_ids: int, done: bool = True) -> None:
        tasks.remember(self.store, 1, [tasks.Inputs(n, "", f"text {n}") for n in task_ids])
        for n in task_ids if done else ():
            row = {"task_id": n, "image": "", "text": f"text {n}", "embedded_with": self.encoder}
            tasks.embedded(self.store, 1, [row])

    def answer(self, *task_ids: int) -> None:
        tasks.label(self.store, 1, [tasks.Labelling(n, "label", ["a"]) for n in task_ids])

    def publish(self, queue: list[int], *, batch: int = 10, hours_ago: float = 0.0) -> None:
        number = projects.get(self.store, 1).round_number + 1
        opened = rounds.start(
            self.store, 1, number=number, version=f"v{number}-auto", trigger="", strategy="auto", options={}, seed=0
        )
        entry = {"project_id": 1, "reason": "typical"}
        roles = ["batch" if place < batch else "reserve" for place in range(len(queue))]
        rows = [{**entry, "task_id": n, "role": role} for n, role in zip(queue, roles, strict=True)]
        rounds.set_queue(self.store, opened.id, rows)
        counts = tasks.counts(self.store, 1, self.encoder)
        # As the pipeline: what a round learns from are the labels that have vectors.
        seen = tasks.vector_rows(self.store, 1, self.encoder)
        known = {"embedded": counts.embedded, "labels": sum(row.label_kind == "label" for row in seen)}
        known |= {"answered": counts.by_label.get("label", 0), "batch": min(batch, len(queue))}
        rounds.reach(self.store, opened.id, "selected", counts=known)
        rounds.put_in_force(self.store, opened)
        projects.remember(self.store, 1, published_at=time.time() - 3600 * hours_ago)

    def due(self) -> str:
        why = request_if_due(self.services, 1)
        projects.remember(self.store, 1, round_requested="")
        return why


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_first_queue_waits_for_a_sample_or_for_all_there_is(world: World) -> None:
    assert world.due() == ""
    world.embed(*range(1, 21))
    world.embed(*range(21, 2000), done=False)
    assert world.due() == ""
    world.embed(*range(21, FIRST_SAMPLE + 1))
    assert world.due() == "first queue"


def test_a_small_project_is_queued_once_all_of_it_is_embedded(world: World) -> None:
    world.embed(1, 2, 3)
    assert world.due() == "first queue"
    projects.remember(world.store, 1, watermark="")  # the first reading is not through: there may be more
    assert world.due() == ""


def test_after_a_publish_nothing_is_due_until_the_batch_is_answered(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 61)))
    assert world.due() == ""
    world.answer(*range(1, 8))
    assert world.due() == ""
    world.answer(8)
    assert world.due() == "8 of 10 tasks of the batch are answered"


def test_a_queue_is_chosen_again_when_twice_as_much_is_embedded_or_embedding_ends(world: World) -> None:
    world.embed(*range(1, 51))
    world.publish(list(range(1, 41)))
    world.embed(*range(51, 120), done=False)
    world.embed(*range(51, 80))
    assert world.due() == ""
    world.embed(*range(80, 101))
    assert world.due() == "twice as many tasks are embedded"
    world.publish(list(range(1, 41)))
    assert world.due() == ""
    world.embed(*range(101, 120))
    assert world.due() == "19 new tasks are embedded"


def test_a_few_new_tasks_wait_for_the_next_batch_and_a_batch_of_them_does_not(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 61)))
    for n in range(101, 110):
        world.embed(n)
        assert world.due() == ""
    world.embed(*range(110, 140), done=False)
    world.embed(*range(110, 139))
    assert world.due() == ""  # more of them are on their way
    world.embed(139)
    assert world.due() == "39 new tasks are embedded"


def test_new_tasks_are_part_of_the_round_that_the_batch_asks_for(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 61)))
    world.embed(101, 102, 103)
    world.answer(*range(1, 9))
    assert world.due() == "8 of 10 tasks of the batch are answered"
    world.publish(list(range(9, 61)))
    assert world.due() == ""  # they are known now
    world.embed(*range(104, 113))
    assert world.due() == ""


def test_new_tasks_that_are_few_wait_a_day_at_most(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 61)), hours_ago=23)
    world.embed(101, 102)
    assert world.due() == ""
    world.publish(list(range(1, 61)), hours_ago=25)
    assert world.due() == ""
    world.embed(103, 104)
    assert world.due() == "2 tasks arrived since the queue was published, more than 24 h ago"
    world.answer(90)
    assert world.due() == "1 label and 2 tasks arrived since the queue was published, more than 24 h ago"


def test_new_tasks_are_queued_at_once_where_everything_was_answered_or_little_is_left(world: World) -> None:
    world.embed(*range(1, 41))
    world.publish(list(range(1, 41)))
    world.answer(*range(1, 41))
    assert world.due() == ""
    world.embed(41, 42, 43)
    assert world.due() != ""
    world.publish([41, 42, 43])
    assert world.due() == ""
    world.embed(44)
    assert world.due() == "only 3 tasks are left in the queue"


def test_a_short_queue_is_topped_up_only_while_the_pool_has_more(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 16)))
    assert world.due() == "only 15 tasks are left in the queue"
    world.answer(*range(16, 101))
    world.publish(list(range(1, 16)))
    assert world.due() == ""


@pytest.mark.parametrize(("batch", "queue"), [(8, 8), (8, 12), (8, 16), (8, 20), (10, 10), (10, 25)])
def test_a_short_queue_waits_for_the_same_share_of_the_batch_as_a_long_one(
    tmp_path: Path, batch: int, queue: int
) -> None:
    world = World(tmp_path, batch_size=batch, queue_size=queue, refresh_share=0.8)
    world.embed(*range(1, 101))
    world.publish(list(range(1, queue + 1)), batch=batch)
    enough = 7 if batch == 8 else 8
    for answered in range(1, enough):
        world.answer(answered)
        assert world.due() == ""
    world.answer(enough)
    assert world.due() != ""


def test_a_queue_that_is_answered_out_of_order_is_topped_up_before_it_runs_dry(tmp_path: Path) -> None:
    world = World(tmp_path, queue_size=15, refresh_share=0.8)
    world.embed(*range(1, 101))
    world.publish(list(range(1, 16)))
    world.answer(1, 2, 3, 11, 12, 13, 14)
    assert world.due() == ""
    world.answer(15)
    assert world.due() == "only 7 tasks are left in the queue"


def test_a_pool_that_is_used_up_asks_for_nothing(world: World) -> None:
    world.embed(*range(1, 12))
    world.publish(list(range(1, 12)))
    world.answer(*range(1, 12))
    assert world.due() == ""


def test_labels_from_outside_the_batch_count_too(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 51)))
    world.answer(*range(60, 69))
    assert world.due() == ""
    world.answer(69)
    assert world.due().startswith("10 labels arrived")


def test_labels_that_wait_for_their_vectors_ask_for_no_round(world: World) -> None:
    world.embed(*range(1, 501), done=False)
    world.answer(*range(201, 501))  # the project came with them
    world.embed(*range(1, 151), *range(201, 251))
    for _ in range(3):
        world.publish(list(range(1, 51)))
        assert world.due() == ""
        assert project_status(world.services, projects.get(world.store, 1)).unfitted_labels == 0
    # Their vectors come one after the other: that is for the rounds that follow what is embedded.
    world.embed(*range(251, 390))
    assert world.due() == ""
    world.embed(390, *range(391, 451))
    assert world.due() == "twice as many tasks are embedded"
    world.publish(list(range(1, 51)))
    world.answer(*range(101, 110))
    assert world.due() == ""
    world.answer(110)
    assert world.due().startswith("10 labels arrived")


def test_labels_that_are_imported_count_once_they_have_vectors(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 51)))
    world.embed(*range(201, 221), done=False)
    world.answer(*range(201, 221))
    assert world.due() == ""
    world.embed(*range(201, 211))
    assert world.due().startswith("10 labels arrived")


def test_a_round_of_a_version_that_noted_less_is_followed_as_before(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 51)))
    opened = rounds.in_force(world.store, projects.get(world.store, 1))
    assert opened is not None
    rounds.reach(
        world.store, opened.id, "cleared", counts={k: v for k, v in opened.counts.items() if k != "answered"}
    )
    world.answer(*range(60, 69))
    assert world.due() == ""
    world.answer(69)
    assert world.due().startswith("10 labels arrived")


def test_an_old_queue_is_chosen_again_only_when_something_was_learnt(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 51)), hours_ago=25)
    assert world.due() == ""
    world.answer(1)
    assert "more than 24 h ago" in world.due()


def test_a_queue_that_was_lost_is_made_again(world: World) -> None:
    world.embed(*range(1, 101))
    world.publish(list(range(1, 51)))
    projects.remember(world.store, 1, version="")
    assert world.due() == "no queue is in force"
