"""Two hosts, each with a web process and a worker, on one PostgreSQL, one Redis and one shared folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import requests
from sqlalchemy import func, select

from backend.labelstudio.local_server import LocalLabelStudio
from backend.store import events, notes, projects, rounds
from backend.store.tables import Vector
from tests.live.backend_process import BackendProcess, wait_for
from tests.live.loop import Loop
from tests.team_servers import shared_postgres, shared_redis

pytestmark = pytest.mark.live


def test_a_host_killed_in_mid_round_is_replaced_by_the_other_and_nothing_is_lost_or_doubled(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    addresses = {
        "MMAL_DATABASE_URL": shared_postgres().new_database(),
        "MMAL_QUEUE_URL": shared_redis().new_database(),
    }
    options = {"batch_size": 10, "queue_size": 30, "poll_seconds": 1, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=80, options=options, environment=addresses) as loop:
        # The other host has the shared folder at a path of its own.
        mounted = tmp_path / "mounted"
        mounted.symlink_to(loop.backend.data_dir)
        other = BackendProcess(mounted, label_studio.url, label_studio.admin.token, addresses)
        with other:
            version = loop.wait_for_version()
            loop.label_batch(3)
            loop.wait_for_labels(3)

            other.stop("worker")
            loop.backend.stop("worker")
            loop.backend.environment["MMAL_HOLD_AT"] = "imported"
            loop.backend.start("worker")
            store = loop.services.store
            projects.request_round(store, loop.project_id, "the test", at_once=True)
            wait_for("the first host to stand in mid-round", (loop.backend.data_dir / "held").exists)
            [cut_off] = rounds.of_project(store, loop.project_id, "running")
            other.start("worker")
            assert loop.label_next().id
            loop.backend.kill9()
            (loop.backend.data_dir / "held").unlink()

            # The second host alone: its web process knows the secret of the webhook, its worker takes the round over.
            hint = requests.post(
                f"{other.url}/events",
                json={"action": "ANNOTATION_CREATED", "project": {"id": loop.project_id}},
                headers={"Authorization": f"Bearer {notes.events_secret(store)}"},
                timeout=30,
            )
            assert hint.status_code == 201
            projects.request_round(store, loop.project_id, "taken over", at_once=True)
            loop.wait_for_version(after=version)
            wait_for("the round that was cut off to be closed", lambda: not running(loop))
            found = rounds.get(store, cut_off.id)
            assert found is not None and found.status == "abandoned"

            loop.backend.environment["MMAL_HOLD_AT"] = ""
            loop.backend.start()
            loop.label_batch(6)
            loop.wait_for_labels(10)
            loop.ask_for_round()
            assert_nothing_doubled(loop)
            assert events.waiting(store) == 0


def running(loop: Loop) -> list[int]:
    return [found.id for found in rounds.of_project(loop.services.store, loop.project_id, "running")]


def assert_nothing_doubled(loop: Loop) -> None:
    store = loop.services.store
    numbers = Counter(found.number for found in rounds.of_project(store, loop.project_id))
    assert set(numbers.values()) == {1}
    assert set(loop.client.model_versions(loop.project_id)) == {loop.project.version}
    published = loop.client.stored_predictions(loop.project_id, loop.project.version)
    assert sorted(row.task_id for row in published) == sorted(loop.queued_ids())
    with store.reading() as session:
        stored = session.execute(select(Vector.modality, func.count(Vector.row.distinct())).group_by(Vector.modality))
        counts = dict(stored.all())
    tasks = [task.data for task in loop.client.tasks_by_id(loop.project_id, loop.task_ids).values()]
    contents = {"image": {task["photo"] for task in tasks}, "text": {task["title"] for task in tasks}}
    assert counts == {modality: len(found) for modality, found in contents.items()}
