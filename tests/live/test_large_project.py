"""A large project with a slow encoder: labelling starts from a random few hundred, embedding goes on beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.triggers import FIRST_SAMPLE
from backend.store import rounds
from tests.live.backend_process import wait_for
from tests.live.loop import Loop

pytestmark = [pytest.mark.live, pytest.mark.slow]

TASKS = 20_000


def test_twenty_thousand_tasks_never_wait_for_a_slow_encoder(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    environment = {"TOY_ENCODER_DELAY": "0.06"}
    options = {"batch_size": 20, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=TASKS, options=options, environment=environment) as loop:
        # The whole pool takes twenty minutes and more; the first queue is promised within three.
        wait_for("the first queue", lambda: loop.project.version, 180)
        status = loop.status
        assert FIRST_SAMPLE <= status.embedded < TASKS
        assert status.embedding_seconds_left > 0
        assert "min left" in loop.backend.cli("status").stdout
        queue = loop.queued_ids()
        # What is embedded is a random sample, not the first rows of the file.
        assert max(queue) - min(queue) > TASKS / 2
        version, queue = loop.project.version, loop.queued_ids()
        served = loop.label_batch(3)
        if loop.project.version == version:
            assert served == queue[:3]
        # On a slow machine the first queue is there before all tasks are even read.
        wait_for("all tasks to be read", lambda: loop.status.tasks == TASKS)
        # Chosen again when twice as many are embedded, while embedding still goes on.
        wait_for("a queue from more tasks", lambda: loop.project.version != version)
        latest = rounds.in_force(loop.services.store, loop.project)
        assert latest is not None
        assert "twice as many" in latest.trigger
        assert loop.status.embedded < TASKS
        assert loop.status.last_error == ""
