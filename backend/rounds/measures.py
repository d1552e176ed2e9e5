"""What is counted while the backend works, for Prometheus.

A process adds up in memory and writes the sums into the store every few seconds. So the web process shows the sums of
all processes on all hosts, they survive restarts, and counting costs no job and no request a write of its own.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass

from backend.errors import StoreError
from backend.store import Store, counters

log = logging.getLogger(__name__)

WRITE_SECONDS = 5.0
SUM = "sum"
OVER = "+Inf"


@dataclass(frozen=True)
class Counted:
    """A counter; with `buckets` (upper bounds) a histogram."""

    name: str
    text: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


REQUESTS = Counted("mmal_requests", "Requests answered", ("method", "route", "status"))
REQUEST_SECONDS = Counted(
    "mmal_request_duration_seconds", "Seconds until a request was answered", ("route",),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)  # fmt: skip
EVENTS = Counted("mmal_events", "Webhook events that a worker acted on", ("project",))
EMBEDDED = Counted("mmal_embedded", "Tasks and catalogue items that went through the encoder", ("project",))
ROUNDS = Counted("mmal_rounds", "Rounds that ended: published, empty, failed or abandoned", ("project", "outcome"))
ROUND_SECONDS = Counted(
    "mmal_round_duration_seconds", "Seconds of whole rounds, whatever became of them", ("project",),
    (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0),
)  # fmt: skip
JOB_SECONDS = Counted(
    "mmal_job_duration_seconds", "Seconds of the worker's jobs, whatever became of them", ("job",),
    (0.05, 0.2, 1.0, 5.0, 20.0, 60.0, 180.0, 600.0),
)  # fmt: skip
FAILURES = Counted("mmal_failures", "Jobs and rounds that failed, by the class of the failure", ("job", "kind"))
ALL = (REQUESTS, REQUEST_SECONDS, EVENTS, EMBEDDED, ROUNDS, ROUND_SECONDS, JOB_SECONDS, FAILURES)


class Tally:
    """What this process counted and has not written into the store yet."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pending: dict[counters.Key, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._writer: threading.Timer | None = None

    def count(self, counted: Counted, *labels: object, by: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            self._pending[counted.name, tuple(map(str, labels))] += by
            self._write_later()

    def observe(self, counted: Counted, *labels: object, seconds: float) -> None:
        """Add an observation to a histogram."""
        place = bisect_left(counted.buckets, seconds)
        bucket = str(counted.buckets[place]) if place < len(counted.buckets) else OVER
        with self._lock:
            self._pending[counted.name, (*map(str, labels), bucket)] += 1.0
            self._pending[counted.name, (*map(str, labels), SUM)] += seconds
            self._write_later()

    def write(self) -> None:
        """Add what is pending to the sums in the store; while that refuses, it stays pending."""
        with self._lock:
            taken, self._pending, self._writer = self._pending, defaultdict(float), None
        if not taken:
            return
        try:
            counters.add(self.store, taken)
        except StoreError as error:
            log.debug("counts are kept for later: %s", error)
            with self._lock:
                for key, amount in taken.items():
                    self._pending[key] += amount
                self._write_later()

    def _write_later(self) -> None:
        if self._writer is None:
            self._writer = threading.Timer(WRITE_SECONDS, self.write)
            self._writer.daemon = True
            self._writer.start()
