"""Which hosts of pictures do not answer at the moment, so that not every picture waits for its own time-out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

# One slow picture says nothing of its host; so many failures in a row do.
FAILURES = 3
LONGEST_PAUSE = 60.0


@dataclass
class _Host:
    failures: int = 0
    until: float = 0.0
    why: str = ""


class ImageHosts:
    """Failures in a row of each host; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    def why_not(self, address: str) -> str:
        """Why the host of an address is left alone for now; empty: it may be asked."""
        with self._lock:
            host = self._hosts.get(_host_of(address))
            if host is None or self._clock() >= host.until:
                return ""
            return f"not asked for now, because its host failed {host.failures} times in a row. Last: {host.why}"

    def failed(self, address: str, why: str) -> None:
        """No answer, or one that says to come later. What was under way when the pause began lengthens it no more."""
        with self._lock:
            host = self._hosts.setdefault(_host_of(address), _Host())
            if self._clock() < host.until:
                return
            host.failures, host.why = host.failures + 1, why
            if host.failures >= FAILURES:
                host.until = self._clock() + min(LONGEST_PAUSE, 2.0 ** min(host.failures - FAILURES + 1, 10))

    def answered(self, address: str) -> None:
        """Whatever the answer was, the host is there."""
        with self._lock:
            self._hosts.pop(_host_of(address), None)


def _host_of(address: str) -> str:
    """Scheme and host, or bucket; empty for what Label Studio serves."""
    if address[:5].lower() == "data:":
        return "data:"
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower() if parts.netloc else ""
