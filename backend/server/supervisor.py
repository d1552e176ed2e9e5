"""`mmal serve`: web process and worker side by side, started again when one dies.

Each runs under a guard, in a session of its own, and ends with the supervisor, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from backend import logs
from backend.errors import StoreError
from backend.rounds.hangup import end_on_hangup, guarded
from backend.server.authentication import check_exposure
from backend.settings import Settings
from backend.store import open_store

log = logging.getLogger(__name__)

PROCESSES = ("web", "worker")
# A process that dies sooner than this after its start waits before it is started again.
QUICK_DEATH = 5.0


def supervise(settings: Settings) -> int:
    """Run both processes until SIGTERM, SIGINT or SIGHUP; returns the exit status.

    Raises
    ------
    CredentialsMissing
        Before either is started: others could reach the web process.
    """
    check_exposure(settings)
    logs.configure(settings)
    # Once, before either process: both would otherwise wait for each other's migration.
    try:
        open_store(settings)
    except StoreError as error:
        log.error("%s (%s; web process and worker wait for it)", error, type(error).__name__)
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    end_on_hangup()
    running = {name: _start(name) for name in PROCESSES}
    started = dict.fromkeys(PROCESSES, time.monotonic())
    while not stopping:
        time.sleep(0.2)
        for name, process in running.items():
            if process.poll() is None or stopping:
                continue
            log.error("%s ended with status %s; starting it again", name, process.returncode)
            # Where it was killed, its own processes would keep the port.
            _signal(process, signal.SIGKILL)
            if time.monotonic() - started[name] < QUICK_DEATH:
                time.sleep(1.0)
            running[name], started[name] = _start(name), time.monotonic()
    for process in running.values():
        _signal(process, signal.SIGTERM)
    for process in running.values():
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
    return 0


def _start(name: str) -> subprocess.Popen[bytes]:
    # Without the working folder, where anything may be called `backend`, on the path.
    return subprocess.Popen(
        guarded([sys.executable, "-P", "-m", "backend.cli", name]),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the guard, which leads a group, and to all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
