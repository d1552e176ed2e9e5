"""The worker is killed at random moments, again and again, while annotators answer."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from backend.store import rounds
from benchmarks.faults.trial import Conditions, Trial, note, trial
from tests.live.backend_process import BackendProcess

_SOONEST, _LATEST = 0.2, 6.0
# One worker in so many lives on until a round of its has been published: others would hardly ever see one end.
_SPARED = 10
_SPARED_SECONDS = 60.0
# Importing takes seconds of each worker's life: a server that has done it once forks them.
_IMPORTED = ["backend.cli", "backend.rounds.worker", "torch", "sklearn.linear_model", "benchmarks.cheap_encoder"]


def kills(folder: Path, minutes: float = 0.0, tasks: int = 2000, count: int = 200) -> dict[str, Any]:
    """SIGKILL `count` times, each 0.2 to 6 s after the worker began; then a worker in peace for `minutes`."""
    conditions = Conditions(
        tasks=tasks,
        annotators=2,
        think=3.0,
        batch_size=4,
        options={"queue_size": 60, "poll_seconds": 2},
        environment={"MMAL_LEASE_SECONDS": "3"},
    )
    with trial(folder, conditions) as running:
        running.loop.backend.stop("worker")
        nursery = multiprocessing.get_context("forkserver")
        nursery.set_forkserver_preload(_IMPORTED)
        chance = random.Random(0)
        where: Counter[str] = Counter()
        running.start()
        for number in range(1, count + 1):
            worker = _fork(nursery, running.loop.backend)
            where[_kill(running, worker, chance, spared=number % _SPARED == 0)] += 1
            if number % _SPARED == 0:
                note(f"killed {number} times")
                running.go_on(0.1)
        before_rest = running.loop.status
        running.loop.backend.start("worker")
        running.go_on(60 * minutes)
        return {
            **running.finish(),
            "killed": count,
            "killed_at": dict(where.most_common()),
            "learnt_before_the_last_kill": before_rest.labels,
        }


def _fork(nursery: Any, backend: BackendProcess) -> ForkServerProcess:
    worker: ForkServerProcess = nursery.Process(target=work, args=(backend.environment, backend.log), daemon=True)
    worker.start()
    return worker


def work(environment: Mapping[str, str], log: Path) -> None:
    """Be `mmal worker`."""
    from backend import cli

    os.environ.update(environment)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    cli.worker()


def _kill(running: Trial, worker: ForkServerProcess, chance: random.Random, *, spared: bool) -> str:
    """Kill the worker at a moment by chance; tells where its round stood."""
    version, until = running.loop.project.version, time.monotonic() + _SPARED_SECONDS
    time.sleep(chance.uniform(_SOONEST, _LATEST))
    while spared and running.loop.project.version == version and time.monotonic() < until:
        time.sleep(0.1)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    if worker.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the worker ended by itself: {worker.exitcode}; see {running.loop.backend.log}")
    latest = rounds.of_project(running.loop.services.store, running.loop.project_id, limit=1)[0]
    return f"after {latest.step!r}" if latest.status == "running" else "clearing away, or between rounds"
