"""A command started through the guard does not outlive the process that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from backend.labelstudio import process_guard

STARTER = """
import subprocess, sys, time
guard = subprocess.Popen(
    [sys.executable, sys.argv[1], sys.executable, "-c",
     "import os, time; print(os.getpid(), flush=True); time.sleep(600)"],
    stdin=subprocess.PIPE, start_new_session=True,
)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie is dead and only waits to be collected.
    return state != "Z"


def test_command_ends_when_its_starter_is_killed() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, process_guard.__file__], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    command = int(starter.stdout.readline())
    assert alive(command)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 20
    while alive(command) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(command)


def test_exit_status_of_the_command_is_passed_on() -> None:
    line = [sys.executable, process_guard.__file__, sys.executable, "-c", "raise SystemExit(7)"]
    guard = subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True)
    assert guard.wait(timeout=30) == 7
    assert guard.stdin is not None
    guard.stdin.close()
