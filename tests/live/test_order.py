"""The next task is the one most worth labelling, and stays so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.rounds.publishing import live_version, trim_live_rows
from backend.rounds.reasons import REASONS
from tests.live.backend_process import wait_for
from tests.live.loop import Loop

pytestmark = pytest.mark.live


def test_label_studio_serves_exactly_the_published_queue_round_after_round(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"batch_size": 20, "refresh_share": 1.0, "queue_size": 60}
    with Loop(label_studio, tmp_path, tasks=150, options=options) as loop:
        version = ""
        for _ in range(3):
            version = loop.wait_for_version(after=version)
            queue = loop.queued_ids()
            assert len(queue) == 60
            assert loop.label_batch(20) == queue[:20]
        loop.wait_for_version(after=version)
        assert loop.status.labels == 60
        assert not set(loop.queued_ids()) & set(queue[:20])
        # One version of ours is left in Label Studio: the one in force.
        assert set(loop.client.model_versions(loop.project_id)) == {loop.project.version}


def test_three_annotators_at_once_are_served_from_the_head_of_the_queue(
    label_studio: LocalLabelStudio, annotators: Callable[[int], list[Account]], tmp_path: Path
) -> None:
    with Loop(label_studio, tmp_path, tasks=150, options={"batch_size": 50, "refresh_share": 1.0}) as loop:
        loop.wait_for_version()
        queue = loop.queued_ids()
        team = [loop.server.client(account) for account in annotators(3)]

        def work(client: object) -> list[int]:
            return [loop.label_next(client).id for _ in range(12)]  # type: ignore[arg-type]

        with ThreadPoolExecutor(3) as pool:
            served = [task_id for ids in pool.map(work, team) for task_id in ids]
        # On SQLite Label Studio selects and locks in two steps, so a task may go out twice; never more than a
        # few, and always from the head of the queue.
        doubled = sum(count - 1 for count in Counter(served).values())
        assert doubled <= 6
        assert max(queue.index(task_id) for task_id in served) < 36 + 3
        loop.wait_for_labels(36 - doubled)


def test_every_queued_task_says_why_it_comes_and_others_say_nothing(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"batch_size": 10, "queue_size": 30, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=80, options=options) as loop:
        version = loop.wait_for_version()
        loop.label_batch(10)
        loop.wait_for_version(after=version)
        queue = {entry.task_id: entry.reason for entry in loop.queue()}
        shown = {t.id: t.data.get("al_reason", "") for t in loop.client.iter_tasks(loop.project_id)}
        assert all(shown[task_id] == REASONS[reason] for task_id, reason in queue.items())
        assert all(not text for task_id, text in shown.items() if task_id not in queue)
        assert len(set(shown.values())) <= 9
        assert not any(label in text for text in REASONS.values() for label in loop.schema.choices)


def test_start_training_brings_a_new_queue(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with Loop(label_studio, tmp_path, tasks=60, options={"batch_size": 20}) as loop:
        version = loop.wait_for_version()
        loop.label_batch(3)
        [backend] = loop.client.ml_backends(loop.project_id)
        loop.client.start_training(backend.id)
        loop.wait_for_version(after=version)
        assert loop.status.unfitted_labels == 0


def test_a_version_reverted_from_a_stale_settings_page_is_put_back(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with Loop(label_studio, tmp_path, tasks=60, options={"batch_size": 20, "poll_seconds": 1}) as loop:
        version = loop.wait_for_version()
        loop.client.import_predictions(
            loop.project_id,
            [{"task": loop.task_ids[0], "result": [], "score": 0.5, "model_version": "somebody-else"}],
        )
        loop.client.set_model_version(loop.project_id, "somebody-else")
        wait_for(
            "our version to be back in force",
            lambda: loop.client.project(loop.project_id).model_version == version,
        )
        assert "somebody-else" in loop.client.model_versions(loop.project_id)


def test_answers_made_on_demand_never_enter_the_queue_and_old_ones_are_cleared_away(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"batch_size": 5, "queue_size": 15, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=40, options=options) as loop:
        version = loop.wait_for_version()
        queue = loop.queued_ids()
        outside = [task_id for task_id in loop.task_ids if task_id not in queue][:3]
        for task_id in outside:
            loop.client.task(task_id)  # opening it makes Label Studio ask /predict
        live = live_version(version)
        assert loop.client.model_versions(loop.project_id)[live] == 3
        assert loop.label_batch(5) == queue[:5]
        loop.wait_for_version(after=version)
        assert trim_live_rows(loop.services, loop.project_id, most=2) in (0, 2)  # the worker may have been first
        assert trim_live_rows(loop.services, loop.project_id) in (0, 1)
        assert live not in loop.client.model_versions(loop.project_id)


def test_rows_of_others_outlive_the_rounds_and_old_ones_of_ours_do_not(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"batch_size": 5, "queue_size": 15, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=40, options=options) as loop:
        version = loop.wait_for_version()
        loop.label_batch(5)
        version = loop.wait_for_version(after=version)
        assert loop.client.model_versions(loop.project_id) == {version: 15}
        theirs = [
            {"task": task_id, "result": [], "score": 0.5, "model_version": "somebody-else"}
            for task_id in loop.task_ids
        ]
        loop.client.import_predictions(loop.project_id, theirs)
        loop.label_batch(5)
        version = loop.wait_for_version(after=version)
        assert loop.client.model_versions(loop.project_id) == {version: 15, "somebody-else": 40}
