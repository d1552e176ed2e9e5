"""What must survive a restart does, whatever ends the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from backend.errors import LeaseLost, ProjectUnknown
from backend.settings import Settings
from backend.store import Store, events, leases, open_store, projects, rounds, tasks
from backend.store.tables import Base, QueueEntry, Round, Vector
from backend.store.vectors import VectorStore


def inputs(count: int, first: int = 1) -> list[tasks.Inputs]:
    return [tasks.Inputs(n, f"picture {n}", f"text {n}") for n in range(first, first + count)]


def unit_rows(count: int, dims: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# A worker on a host of its own: its data folder, its database, and which contents it embeds.
APPEND = """
import sys
from pathlib import Path
import numpy as np
from backend.settings import Settings
from backend.store import open_store
from backend.store.vectors import VectorStore
folder, url, part = sys.argv[1:]
vectors = VectorStore(open_store(Settings(data_dir=Path(folder), database_url=url)), "e", {"text": 8})
for n in range(40 * int(part), 40 * int(part) + 80, 4):
    rows = np.repeat(np.arange(n, n + 4, dtype=np.float32)[:, None], 8, axis=1)
    vectors.append("text", [f"content {i}" for i in range(n, n + 4)], rows)
"""


def rows_of(store: Store, contents: Iterable[str]) -> np.ndarray:
    """Where the text vectors of these contents lie, in their order."""
    with store.reading() as session:
        found = dict(session.execute(select(Vector.content_hash, Vector.row).where(Vector.encoder_id == "e")).all())
    return np.array([found[content] for content in contents])


def test_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_store_opened_by_many_processes_at_once_is_migrated_once(settings: Settings) -> None:
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            open_store(settings).engine.dispose()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_unknown_project_is_named_with_the_command_that_connects_it(store: Store) -> None:
    with pytest.raises(ProjectUnknown, match="mmal project attach --project 5"):
        projects.get(store, 5)


@pytest.mark.parametrize("project_id", [2**31, 2**63, -(2**40)])
def test_a_number_that_no_project_can_have_is_unknown_like_any_other(store: Store, project_id: int) -> None:
    with pytest.raises(ProjectUnknown):
        projects.get(store, project_id)


class TestLeases:
    def test_a_second_holder_is_refused_while_the_first_one_lives(self, store: Store) -> None:
        first = leases.acquire(store, "round 1", "a", seconds=0.4)
        assert first is not None
        time.sleep(0.8)  # twice the length of the lease: the heartbeat keeps it
        assert leases.acquire(store, "round 1", "b", seconds=0.4) is None
        assert leases.holder_of(store, "round 1", 0.4) == "a"
        first.release()
        assert leases.holder_of(store, "round 1", 0.4) == ""

    def test_a_holder_does_not_take_its_own_lease_however_late_the_heartbeat(self, store: Store) -> None:
        first = leases.acquire(store, "round 1", "a", seconds=60)
        assert first is not None
        assert leases.acquire(store, "round 1", "a", seconds=0.0) is None
        first.check()
        first.release()
        again = leases.acquire(store, "round 1", "a", seconds=0.0)
        assert again is not None
        again.release()

    def test_a_dead_holder_is_taken_over_and_finds_out_when_it_comes_back(self, store: Store) -> None:
        first = leases.acquire(store, "round 1", "a", seconds=60)
        assert first is not None
        second = leases.acquire(store, "round 1", "b", seconds=0.0)
        assert second is not None
        with pytest.raises(LeaseLost):
            first.check()
        first.release()
        assert leases.holder_of(store, "round 1", 60) == "b"
        second.release()

    def test_of_many_that_try_at_once_one_gets_it(self, store: Store) -> None:
        got: list[object] = []
        threads = [
            threading.Thread(target=lambda n=n: got.append(leases.acquire(store, "x", str(n), 60))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(lease is not None for lease in got) == 1


def start_round(store: Store, number: int, trigger: str = "", project_id: int = 1) -> Round:
    about: dict[str, Any] = {"strategy": "auto", "options": {}, "seed": 0}
    return rounds.start(store, project_id, number=number, version=f"v{number}-auto", trigger=trigger, **about)


class TestRoundRequests:
    def test_requests_during_a_round_are_followed_by_exactly_one_more(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        projects.request_round(store, 1, "first")
        assert start_round(store, 1, trigger="first").trigger == "first"
        assert projects.get(store, 1).round_requested == ""
        projects.request_round(store, 1, "second")
        projects.request_round(store, 1, "third")
        assert projects.get(store, 1).round_requested == "third"
        start_round(store, 2, trigger="third")
        assert projects.get(store, 1).round_requested == ""

    def test_a_request_made_while_a_round_opens_is_kept_for_the_next(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        projects.request_round(store, 1, "first")
        projects.request_round(store, 1, "second")
        start_round(store, 1, trigger="first")
        assert projects.get(store, 1).round_requested == "second"

    def test_a_request_judged_on_an_old_state_is_dropped(self, store: Store) -> None:
        seen = projects.remember(store, 1, state="attached")
        start_round(store, 1)
        assert not projects.request_round_if_unchanged(store, seen, "stale", "round 1", 60)
        assert projects.get(store, 1).round_requested == ""

    def test_nothing_becomes_due_while_a_round_is_running(self, store: Store) -> None:
        seen = projects.remember(store, 1, state="attached")
        with leases.held(store, "round 1", "a worker", 60):
            assert not projects.request_round_if_unchanged(store, seen, "due", "round 1", 60)
        assert projects.request_round_if_unchanged(store, seen, "due", "round 1", 60)

    def test_failures_in_a_row_wait_longer_and_a_success_ends_that(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        waits = []
        for _ in range(12):
            projects.record_failure(store, 1, "down", pause=True, ask_again="the batch")
            waits.append(round(projects.get(store, 1).round_not_before - time.time()))
        assert waits == sorted(waits)
        assert waits[-1] <= projects.LONGEST_BACKOFF
        assert projects.get(store, 1).round_requested == "the batch"
        projects.record_look(store, 1)  # which says nothing of the round that failed
        assert projects.get(store, 1).last_error == "down"
        assert projects.get(store, 1).round_not_before > time.time()
        projects.record_success(store, 1)
        assert projects.get(store, 1).last_error == ""
        assert projects.get(store, 1).round_not_before == 0

    def test_failures_without_end_neither_lose_what_was_asked_for_nor_stop_to_wait(self, store: Store) -> None:
        projects.remember(store, 1, state="attached", failures=5000)
        projects.record_failure(store, 1, "down", pause=True, ask_again="Start Training")
        assert projects.get(store, 1).round_requested == "Start Training"
        assert projects.get(store, 1).round_not_before == pytest.approx(
            time.time() + projects.LONGEST_BACKOFF, abs=30
        )

    def test_a_look_that_failed_after_a_round_did_is_past_with_the_next_look(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        projects.record_failure(store, 1, "down", pause=True)
        projects.record_failure(store, 1, "sync: down")
        projects.record_look(store, 1)
        assert (projects.get(store, 1).last_error, projects.get(store, 1).failures) == ("", 1)

    def test_a_failure_that_paused_nothing_is_past_with_the_next_look(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        projects.record_failure(store, 1, "sync: down")
        projects.record_look(store, 1)
        assert projects.get(store, 1).last_error == ""

    def test_where_label_studio_was_ill_the_pause_stays_short(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        for _ in range(12):
            projects.record_failure(store, 1, "down", pause=True, longest=projects.LONGEST_BACKOFF_UNANSWERED)
        wait = projects.get(store, 1).round_not_before - time.time()
        assert wait <= projects.LONGEST_BACKOFF_UNANSWERED


class TestTasks:
    def test_a_changed_input_is_embedded_again_and_an_unchanged_one_is_not(self, store: Store) -> None:
        assert tasks.remember(store, 1, inputs(2)) == 2
        for task in tasks.to_embed(store, 1, "e", 10):
            row = {"task_id": task.task_id, "image": task.image, "text": task.text, "embedded_with": "e"}
            tasks.embedded(store, 1, [row])
        assert tasks.remember(store, 1, inputs(2)) == 0
        assert tasks.to_embed(store, 1, "e", 10) == []
        assert tasks.remember(store, 1, [tasks.Inputs(1, "picture 1", "another text")]) == 1
        assert [t.task_id for t in tasks.to_embed(store, 1, "e", 10)] == [1]
        assert len(tasks.to_embed(store, 1, "another encoder", 10)) == 2

    def test_an_input_that_changed_while_it_was_embedded_keeps_waiting(self, store: Store) -> None:
        tasks.remember(store, 1, inputs(1))
        [old] = tasks.to_embed(store, 1, "e", 1)
        tasks.remember(store, 1, [tasks.Inputs(1, "new picture", "text 1")])
        tasks.embedded(store, 1, [{"task_id": 1, "image": old.image, "text": old.text, "embedded_with": "e"}])
        assert [t.image for t in tasks.to_embed(store, 1, "e", 1)] == ["new picture"]

    def test_urgent_tasks_come_first_and_the_rest_in_random_order(self, store: Store) -> None:
        tasks.remember(store, 1, inputs(200))
        tasks.remember(store, 1, inputs(1, first=900), urgent=True)
        tasks.remember(store, 1, inputs(1, first=77), urgent=True)  # known before, hurried now
        order = [t.task_id for t in tasks.to_embed(store, 1, "e", 300)]
        assert set(order[:2]) == {77, 900}
        assert order[2:] != sorted(order[2:])

    def test_answers_of_a_task_are_replaced_whole_so_each_counts_once(self, store: Store) -> None:
        tasks.remember(store, 1, inputs(1))
        answer = {"annotation_id": 5, "task_id": 1, "choices": ["a"], "has_choices": True}
        for _ in range(3):
            tasks.label(store, 1, [tasks.Labelling(1, "label", ["a"], [answer])])
        assert tasks.count_answers(store, 1) == (1, 0)
        assert tasks.label(store, 1, [tasks.Labelling(1, "none")]) == 1
        assert tasks.count_answers(store, 1) == (0, 0)

    def test_a_skipped_task_that_was_put_back_leaves_the_pool_when_it_is_skipped_again(self, store: Store) -> None:
        def skip(*annotation_ids: int) -> None:
            rest = {"annotator_id": 3, "updated_at": "", "choices": [], "has_choices": False, "ground_truth": False}
            skips = [{"annotation_id": n, "task_id": 1, "was_cancelled": True, **rest} for n in annotation_ids]
            rows = [{**row, "problem": ""} for row in skips]
            tasks.label(store, 1, [tasks.Labelling(1, "skipped", [], rows)])

        def pool() -> int:
            return len(tasks.vector_rows(store, 1, "e"))

        tasks.remember(store, 1, [tasks.Inputs(1, "", "text")])
        tasks.embedded(store, 1, [{"task_id": 1, "image": "", "text": "text", "embedded_with": "e"}])
        skip(5)
        assert pool() == 0
        tasks.restore_skipped(store, 1)
        skip(5)  # read once more: nobody skipped it again
        assert pool() == 1
        skip(5, 6)
        assert pool() == 0
        tasks.restore_skipped(store, 1)
        skip(6)  # a skip was taken back, which is none
        assert pool() == 1

    def test_a_deleted_task_leaves_pool_and_training_set_and_may_come_back(self, store: Store) -> None:
        tasks.remember(store, 1, inputs(2))
        tasks.label(store, 1, [tasks.Labelling(1, "label", ["a"], [{"annotation_id": 5, "task_id": 1}])])
        tasks.drop(store, 1, [1])
        counts = tasks.counts(store, 1, "e")
        assert (counts.live, counts.by_label, tasks.count_answers(store, 1)) == (1, {"none": 1}, (0, 0))
        assert tasks.remember(store, 1, inputs(1)) == 1
        assert tasks.live_ids(store, 1) == {1, 2}


class TestVectors:
    def test_a_content_is_stored_once_and_found_after_a_restart(self, store: Store, settings: Settings) -> None:
        vectors, rows = VectorStore(store, "e", {"text": 8}), unit_rows(3, 8)
        vectors.append("text", ["a", "b", "c"], rows)
        vectors.append("text", ["b", "c", "b", "d"], np.vstack([-rows[1:], unit_rows(2, 8, seed=1)]))
        again = VectorStore(open_store(settings), "e", {"text": 8})
        assert again.known("text", ["a", "b", "c", "d", "z"]) == {"a", "b", "c", "d"}
        np.testing.assert_array_equal(again.gather("text", rows_of(store, "abc")), rows.astype(np.float16))
        [path] = vectors.folder.glob("text*.f16")
        assert path.stat().st_size == 4 * 8 * 2

    def test_an_absent_modality_is_a_zero_row(self, store: Store) -> None:
        vectors = VectorStore(store, "e", {"text": 4})
        assert not vectors.gather("text", np.array([-1, -1])).any()
        vectors.append("text", ["a"], unit_rows(1, 4))
        found = vectors.gather("text", np.append(-1, rows_of(store, "a")))
        assert not found[0].any()
        assert found[1].any()

    @pytest.mark.parametrize("torn", [1, 7, 15, 16, 40])
    def test_bytes_of_an_append_that_was_cut_off_are_passed_over(self, store: Store, torn: int) -> None:
        vectors, rows = VectorStore(store, "e", {"text": 8}), unit_rows(2, 8)
        vectors.append("text", ["a"], rows[:1])
        [path] = vectors.folder.glob("text*.f16")
        with open(path, "ab") as file:
            file.write(b"\xff" * torn)
        np.testing.assert_array_equal(vectors.gather("text", rows_of(store, "a")), rows[:1].astype(np.float16))
        vectors.append("text", ["b"], rows[1:])
        np.testing.assert_array_equal(vectors.gather("text", rows_of(store, "ab")), rows.astype(np.float16))

    def test_the_single_file_of_earlier_versions_is_read_and_never_written(self, store: Store) -> None:
        vectors, rows = VectorStore(store, "e", {"text": 8}), unit_rows(3, 8)
        old = vectors.folder / "text.f16"
        old.write_bytes(rows[:2].astype(np.float16).tobytes())
        with store.statement() as session:
            session.add_all(
                Vector(encoder_id="e", modality="text", content_hash=content, row=row)
                for row, content in enumerate("ab")
            )
        vectors.append("text", ["c"], rows[2:])
        assert old.stat().st_size == 2 * 8 * 2
        np.testing.assert_array_equal(
            vectors.gather("text", rows_of(store, "cab")), rows[[2, 0, 1]].astype(np.float16)
        )

    def test_writers_in_parallel_lose_nothing(self, store: Store) -> None:
        vectors, rows = VectorStore(store, "e", {"text": 8}), unit_rows(60, 8)
        names = [f"content {n}" for n in range(60)]

        def write(part: int) -> None:
            vectors.append("text", names[part::3], rows[part::3])

        threads = [threading.Thread(target=write, args=[part]) for part in (0, 1, 2, 0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert vectors.known("text", names) == set(names)
        np.testing.assert_array_equal(vectors.gather("text", rows_of(store, names)), rows.astype(np.float16))

    def test_processes_on_two_hosts_share_the_folder_and_lose_nothing(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        # Each host has the folder at a path of its own.
        mounted = tmp_path / "mounted elsewhere"
        mounted.symlink_to(settings.data_dir)
        folders = [settings.data_dir, mounted]
        processes = [
            subprocess.Popen([sys.executable, "-c", APPEND, str(folder), settings.database_url, str(part)])
            for part, folder in enumerate(folders)
        ]
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
        vectors, names = VectorStore(store, "e", {"text": 8}), [f"content {n}" for n in range(120)]
        assert len(list(vectors.folder.glob("text*.f16"))) == 2
        # Contents 40 to 79 were appended by both; whoever was first, the vector is the right one.
        expected = np.repeat(np.arange(120, dtype=np.float16)[:, None], 8, axis=1)
        np.testing.assert_array_equal(vectors.gather("text", rows_of(store, names)), expected)


class TestRounds:
    def test_a_head_is_read_back_as_it_was_written_and_old_ones_go(self, store: Store) -> None:
        for number in range(1, 8):
            opened = start_round(store, number)
            path = rounds.save_head(store, opened, {"w": np.full((2, 3), number)}, {"kind": "test"})
        arrays, metadata = rounds.load_head(path)
        assert arrays["w"].tolist() == [[7, 7, 7], [7, 7, 7]]
        assert metadata == {"kind": "test"}
        assert len(list(path.parent.iterdir())) == rounds.KEPT_HEADS

    def test_the_head_in_force_stays_however_many_rounds_fail_and_theirs_do_not_pile_up(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        folder = store.data_dir / "heads" / "1"

        def saves_a_head(number: int) -> Round:
            opened = start_round(store, number)
            path = rounds.save_head(store, opened, {"w": np.full(2, number)}, {})
            rounds.reach(store, opened.id, "saved", head=str(path.relative_to(store.data_dir)))
            return opened

        rounds.put_in_force(store, saves_a_head(1))
        for number in range(2, 10):
            assert rounds.give_up(store, saves_a_head(number), "failed", "Label Studio refused")
            assert (folder / "000001.safetensors").exists(), number
        assert len(list(folder.iterdir())) == rounds.KEPT_HEADS + 1
        rounds.put_in_force(store, saves_a_head(10))
        saves_a_head(11)
        assert sorted(int(path.stem) for path in folder.iterdir()) == [7, 8, 9, 10, 11]

    def test_a_round_that_ended_stays_as_it_ended(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        published, failed = start_round(store, 1, "first"), start_round(store, 2, "second")
        rounds.put_in_force(store, published)
        assert not rounds.give_up(store, published, "failed", "too late")
        rounds.close(store, published.id, "empty")
        assert projects.get(store, 1).round_requested == ""
        assert rounds.give_up(store, failed, "failed", "refused")
        assert not rounds.give_up(store, failed, "abandoned", "too late")
        project = projects.get(store, 1)
        assert (project.round_requested, project.failures, project.last_error) == ("second", 1, "refused")
        found = {r.number: (r.status, r.error) for r in rounds.of_project(store, 1)}
        assert found == {1: ("published", ""), 2: ("failed", "refused")}

    def test_putting_a_round_in_force_is_one_step(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        opened = start_round(store, 1)
        assert rounds.in_force(store, projects.get(store, 1)) is None
        rounds.put_in_force(store, opened)
        found = rounds.in_force(store, projects.get(store, 1))
        assert found is not None
        assert (found.status, found.version) == ("published", "v1-auto")

    def test_of_earlier_queues_the_latest_place_of_each_task_stays(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        first = publish(store, 1, {1: "batch", 2: "control", 3: "reserve", 4: "batch"})
        failed = start_round(store, 2)
        rounds.set_queue(store, failed.id, places({5: "batch", 1: "reserve"}))
        rounds.give_up(store, failed, "failed", "Label Studio was away")
        another = publish(store, 1, {1: "batch"}, project_id=2)
        latest = publish(store, 3, {3: "batch", 2: "reserve", 6: "batch"})
        assert rounds.forget_superseded(store, latest) == 4
        assert kept(store, first) == {1: "batch", 4: "batch"}
        assert kept(store, failed) == {}
        assert kept(store, another) == {1: "batch"}
        assert kept(store, latest) == {3: "batch", 2: "reserve", 6: "batch"}
        for task_id, round_ in {1: first, 2: latest, 3: latest, 4: first, 6: latest}.items():
            found = rounds.last_entry(store, 1, task_id)
            assert found is not None, "a task cannot be explained any more"
            assert found[1].id == round_.id

    def test_queues_take_no_more_room_however_many_rounds_there_are(self, store: Store) -> None:
        projects.remember(store, 1, state="attached")
        queue = dict.fromkeys(range(1, 21), "reserve")
        for number in range(1, 31):
            rounds.forget_superseded(store, publish(store, number, {**queue, number % 20 + 1: "control"}))
        with store.reading() as session:
            kept = session.scalars(select(QueueEntry.task_id)).all()
        assert sorted(kept) == sorted(queue)


def places(roles: dict[int, str], project_id: int = 1) -> list[dict[str, Any]]:
    entry = {"project_id": project_id, "reason": "typical"}
    return [{**entry, "task_id": task_id, "role": role} for task_id, role in roles.items()]


def publish(store: Store, number: int, roles: dict[int, str], project_id: int = 1) -> Round:
    opened = start_round(store, number, project_id=project_id)
    rounds.set_queue(store, opened.id, places(roles, project_id))
    rounds.put_in_force(store, opened)
    return opened


def kept(store: Store, of: Round) -> dict[int, str]:
    return {entry.task_id: entry.role for entry in rounds.queue(store, of.id)}


def test_events_of_parallel_bursts_are_all_there_and_drained_by_project(store: Store) -> None:
    def burst(project: int) -> None:
        for _ in range(250):
            events.add(store, project, "ANNOTATION_CREATED")

    threads = [threading.Thread(target=burst, args=[n]) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen, found = events.peek(store)
    assert {project: counter["ANNOTATION_CREATED"] for project, counter in found.items()} == dict.fromkeys(
        range(1, 5), 250
    )
    events.add(store, 1, "LATE")
    events.forget(store, seen)
    assert events.waiting(store) == 1
