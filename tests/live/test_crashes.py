"""Killed at any point of a round: the old or the new queue is served, nothing is lost, the next round completes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.pipeline import POINTS
from backend.store import projects, rounds
from tests.live.backend_process import wait_for
from tests.live.conftest import fresh_server
from tests.live.loop import Loop
from tests.live.relay import Relay, RelayedCall

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def loop(label_studio: LocalLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One project that survives all the crashes of this module, one after the other."""
    options = {"batch_size": 10, "queue_size": 30, "poll_seconds": 1, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path_factory.mktemp("crashes"), tasks=120, options=options) as loop:
        loop.wait_for_version()
        yield loop


def hold_next_round(loop: Loop, point: str) -> None:
    loop.backend.stop("worker")
    loop.backend.environment["MMAL_HOLD_AT"] = point
    loop.backend.start("worker")
    projects.request_round(loop.services.store, loop.project_id, "the test", at_once=True)
    wait_for(f"the worker to stand at {point!r}", lambda: (loop.backend.data_dir / "held").exists())


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_the_old_or_the_new_queue_is_served_and_what_was_asked_for_is_done(
    loop: Loop, point: str
) -> None:
    store = loop.services.store
    before, version, labels = loop.queued_ids(), loop.project.version, loop.status.labels
    served = loop.label_next()
    loop.wait_for_labels(labels + 1)
    hold_next_round(loop, point)
    loop.backend.kill9()
    [cut_off] = rounds.of_project(store, loop.project_id, limit=1)
    new = [entry.task_id for entry in rounds.queue(store, cut_off.id)]
    assert loop.served_order() in (before, new)
    after_death = loop.label_next()
    assert after_death.id in (before[1], *new[:1])

    (loop.backend.data_dir / "held").unlink()
    loop.backend.environment["MMAL_HOLD_AT"] = ""
    loop.backend.start()
    loop.wait_for_labels(labels + 2)
    # Nobody asks again: the round that was cut off is adopted where its queue was in force, else it is run anew.
    done = wait_for("what was asked for to be done", lambda: next((
        r for r in rounds.of_project(store, loop.project_id, "published", limit=1) if r.id >= cut_off.id
    ), None))  # fmt: skip
    loop.settle()
    assert done.trigger == "the test"
    assert (done.id == cut_off.id) == (point in POINTS[POINTS.index("switched") :])
    assert loop.project.version == done.version != version
    assert loop.served_order() == loop.queued_ids()
    assert not rounds.of_project(store, loop.project_id, "running")
    wait_for("what the dead worker had not cleared away to be gone", lambda: (
        set(loop.client.model_versions(loop.project_id)) == {loop.project.version}
    ))  # fmt: skip
    if done.id == cut_off.id:
        # What was answered since is the next round's business.
        loop.ask_for_round()
        assert set(loop.client.model_versions(loop.project_id)) == {loop.project.version}
    assert loop.served_order() == loop.queued_ids()
    assert not {served.id, after_death.id} & set(loop.queued_ids())


def test_a_task_deleted_between_selection_and_publish_is_left_out_and_the_rest_is_published(loop: Loop) -> None:
    for hook in loop.client.webhooks(loop.project_id):
        loop.client.delete_webhook(hook.id)
    version = loop.project.version
    hold_next_round(loop, "selected")
    candidates = [task_id for task_id in loop.task_ids if task_id in set(loop.queued_ids())]
    loop.client.delete_tasks(loop.project_id, candidates[:10])
    (loop.backend.data_dir / "held").unlink()
    loop.wait_for_version(after=version)
    [latest] = rounds.of_project(loop.services.store, loop.project_id, "published", limit=1)
    assert latest.error == ""
    assert not set(candidates[:10]) & set(loop.queued_ids())
    assert loop.served_order() == loop.queued_ids()


@pytest.mark.parametrize("point", ["synced", "imported", "switched"])
def test_label_studio_restarted_in_the_middle_of_a_round(tmp_path: Path, point: str) -> None:
    options = {"batch_size": 10, "queue_size": 30, "poll_seconds": 1}
    with fresh_server(tmp_path) as server, Loop(server, tmp_path, tasks=60, options=options) as loop:
        loop.wait_for_version()
        loop.label_batch(3)
        loop.wait_for_labels(3)
        version = loop.project.version
        hold_next_round(loop, point)
        server.kill9()
        (loop.backend.data_dir / "held").unlink()
        if point != "switched":
            wait_for("the failure to be told", lambda: "LabelStudioUnreachable" in loop.status.last_error)
            assert "LabelStudioUnreachable" in loop.backend.cli("status").stdout
        server.restart()
        loop.wait_for_version(after=version)
        assert loop.status.labels == 3
        assert loop.served_order() == loop.queued_ids()
        wait_for("the version before to be gone", lambda: (
            set(loop.client.model_versions(loop.project_id)) == {loop.project.version}
        ))  # fmt: skip


class NoFullReading(Relay):
    """Label Studio to a worker that never gets through with reading all tasks, once `cut_short` is set."""

    cut_short = False

    def serve(self, call: RelayedCall) -> None:
        if self.cut_short and "fields=task_only" in call.path:
            call.cut()
        else:
            super().serve(call)


def test_a_worker_that_never_gets_to_compare_everything_still_learns_what_changed(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with NoFullReading() as relay:
        relay.target = label_studio.url
        options = {"poll_seconds": 1, "batch_size": 10}
        environment = {"LABEL_STUDIO_URL": relay.url}
        with Loop(label_studio, tmp_path, tasks=40, options=options, environment=environment) as loop:
            loop.wait_for_version()
            loop.backend.kill9("worker")
            loop.label_batch(3)
            relay.cut_short = True
            loop.backend.start("worker")
            loop.wait_for_labels(3)
