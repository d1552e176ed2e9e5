"""Runs a command and ends it when the process that started the guard is gone.

Started as a script with the command as arguments and a pipe as standard input; imports nothing of this project.
The starter never writes: the end of the pipe means that the starter died, however it died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE = 5.0  # seconds between asking to end and ending


def _end_with_starter() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    # The guard leads the process group, so this reaches whatever the command started.
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Run the command, pass on its exit status."""
    # A signal to the group reaches the command too: the guard stays until the command has ended.
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
