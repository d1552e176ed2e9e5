"""The worker is killed at random moments, again and again, while annotators answer."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from backend.store import rounds
from benchmarks.faults.trial import Conditions, Trial, note, trial
from tests.live.backend_process import wait_for

_SOONEST, _LATEST = 0.2, 6.0
# One in so many is killed while it still starts.
_STARTING = 10


def kills(folder: Path, minutes: float = 0.0, tasks: int = 2000, count: int = 200) -> dict[str, Any]:
    """SIGKILL `count` times, 0.2 to 6 s after the worker went to work; then a worker in peace for `minutes`."""
    conditions = Conditions(
        tasks=tasks,
        annotators=2,
        think=3.0,
        batch_size=4,
        options={"queue_size": 60, "poll_seconds": 2},
        environment={"MMAL_LEASE_SECONDS": "3"},
    )
    with trial(folder, conditions) as running:
        running.start()
        chance = random.Random(0)
        where: Counter[str] = Counter()
        for number in range(count):
            where[_kill(running, chance)] += 1
            running.loop.backend.start("worker")
            if number % 10 == 9:
                note(f"killed {number + 1} times")
                running.go_on(0.1)
        running.go_on(60 * minutes)
        return {**running.finish(), "killed": count, "killed_at": dict(where.most_common())}


def _kill(running: Trial, chance: random.Random) -> str:
    """Kill the worker at a moment by chance; tells where its round stood."""
    backend, log = running.loop.backend, running.loop.backend.log
    wanted = chance.uniform(_SOONEST, _LATEST)
    if chance.randrange(_STARTING):
        pid = str(backend.processes["worker"].pid)
        wait_for("the worker to start", lambda: f":{pid} started" in log.read_text(errors="replace"))
    time.sleep(wanted)
    backend.kill9("worker")
    latest = rounds.of_project(running.loop.services.store, running.loop.project_id, limit=1)[0]
    # A round counts as published from the switch on; its clearing away is still to come.
    under_way = latest.status == "running" or latest.step == "in force"
    return f"after {latest.step!r}" if under_way else "between rounds"
