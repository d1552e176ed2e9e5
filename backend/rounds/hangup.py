"""A closed terminal ends a process like SIGTERM does; gunicorn and huey would begin anew and stay without it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from backend.labelstudio import process_guard

# As `nohup` leaves it. Asked before anybody sets a handler.
_IGNORED = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def end_on_hangup() -> None:
    """From now on SIGHUP is SIGTERM, or ignored where the process was started with it ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN if _IGNORED else _end)


def guarded(command: Sequence[str]) -> list[str]:
    """The command line that ends the command with whoever starts it, by a pipe as its standard input."""
    return [sys.executable, process_guard.__file__, *command]


def _end(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
