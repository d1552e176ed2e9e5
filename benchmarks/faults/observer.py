"""Looks on from outside, once a second: is a ranked queue in force, how much memory, for how long is it locked."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import linregress

from tests.live.backend_process import BackendProcess

# Where SQLite keeps the lock of the one that writes (sqlite.org/fileformat2, "The Lock-Byte Page").
_RESERVED_BYTE = 0x40000001
_LOCK_LOOKS = 0.01
# A lock shorter than this holds nobody up that one could notice.
_NOTABLE_LOCK = 0.05


class LabelStudioSqlite:
    """Label Studio's own database, read only: what is served, and what was answered."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # One connection for good: closing one would drop the locks that others of this process hold on the file.
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=2.0, check_same_thread=False)
        self._lock = threading.Lock()

    def queue_left(self, project_id: int) -> int:
        """Tasks with a row of the version in force and no annotation or skip."""
        return int(
            self._rows(
                "SELECT count(DISTINCT p.task_id) FROM prediction p JOIN project j ON j.id = p.project_id"
                " WHERE j.id = ? AND p.model_version = j.model_version AND p.score IS NOT NULL"
                " AND NOT EXISTS (SELECT 1 FROM task_completion c WHERE c.task_id = p.task_id)",
                project_id,
            )[0][0]
        )

    def answered(self, project_id: int) -> set[int]:
        """Tasks with at least one annotation that is not a skip."""
        rows = self._rows(
            "SELECT DISTINCT task_id FROM task_completion WHERE project_id = ? AND NOT was_cancelled", project_id
        )
        return {int(row[0]) for row in rows}

    def answers(self, project_id: int) -> int:
        """All annotations that are no skips."""
        rows = self._rows(
            "SELECT count(*) FROM task_completion WHERE project_id = ? AND NOT was_cancelled", project_id
        )
        return int(rows[0][0])

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


@dataclass(frozen=True)
class Sample:
    """One look; `left` is None where Label Studio's database could not be read."""

    at: float
    left: int | None
    rss: dict[str, float]


class Observer(threading.Thread):
    """Samples from `start` to `stop`."""

    def __init__(self, database: LabelStudioSqlite, project_id: int, backend: BackendProcess) -> None:
        super().__init__(name="observer", daemon=True)
        self.database, self.project_id, self.backend = database, project_id, backend
        self.samples: list[Sample] = []
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            try:
                left: int | None = self.database.queue_left(self.project_id)
            except sqlite3.Error:
                left = None
            pids = {name: process.pid for name, process in list(self.backend.processes.items())}
            self.samples.append(Sample(time.monotonic(), left, {n: group_rss(pid) for n, pid in pids.items()}))
            self._done.wait(1.0)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def memory_now(self) -> str:
        """MiB of each process group at the last look."""
        return ", ".join(f"{name} {mib:.0f} MiB" for name, mib in sorted(self.samples[-1].rss.items()))

    def figures(self, warm_up: float) -> dict[str, Any]:
        """Gaps in the queue, and memory after `warm_up` seconds."""
        known = [sample for sample in self.samples if sample.left is not None]
        return {
            "longest_without_queue": round(longest_gap([(s.at, bool(s.left)) for s in known]), 1),
            "longest_between_looks": round(max(np.diff([s.at for s in known]), default=0.0), 1),
            "least_left": min((s.left for s in known if s.left is not None), default=0),
            "memory": {name: self._memory(name, warm_up) for name in ("web", "worker")},
        }

    def _memory(self, name: str, warm_up: float) -> dict[str, Any]:
        begun = self.samples[0].at + warm_up
        points = [(s.at, s.rss[name]) for s in self.samples if s.at >= begun and s.rss.get(name)]
        return slope(points)


def longest_gap(looks: list[tuple[float, bool]]) -> float:
    """Seconds from the first look without a queue to the next with one, at their longest."""
    longest, since = 0.0, None
    for at, ranked in looks:
        if since is None and not ranked:
            since = at
        if since is not None:
            longest = max(longest, at - since)
        if ranked:
            since = None
    return longest


def slope(points: list[tuple[float, float]]) -> dict[str, Any]:
    """MiB an hour and its standard error by least squares over the means of minutes; first, last and highest MiB.

    The lowest of each minute too: what a process holds between its rounds, which take memory for a while.
    """
    if not points:
        return {}
    at, mib = np.array(points).T
    figures: dict[str, Any] = {"first": round(mib[0], 1), "last": round(mib[-1], 1), "highest": round(mib.max(), 1)}
    minutes = ((at - at[0]) // 60).astype(int)
    means, lows = np.array([(mib[minutes == m].mean(), mib[minutes == m].min()) for m in np.unique(minutes)]).T
    if len(means) >= 4:
        line = linregress(np.unique(minutes) / 60, means)
        figures |= {
            "mib_per_hour": round(float(line.slope), 2),
            "standard_error": round(float(line.stderr), 2),
            "by_minute": [round(float(mean), 1) for mean in means],
            "lowest_by_minute": [round(float(low), 1) for low in lows],
        }
    return figures


def group_rss(group: int) -> float:
    """MiB resident in all processes of a process group."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[21])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


class LockWatch(threading.Thread):
    """For how long somebody holds the lock to write in a SQLite file; asks the kernel and touches nothing."""

    def __init__(self, file: Path, what: Callable[[], str] = lambda: "") -> None:
        super().__init__(name="lock watch", daemon=True)
        self._file = open(file, "rb")  # noqa: SIM115 - see LabelStudioSqlite: closing would drop locks
        self._what = what
        self._done = threading.Event()
        self.clock = time.monotonic
        self.held_since: float | None = None
        self.held: list[tuple[float, float, str]] = []

    def run(self) -> None:
        what = ""
        while not self._done.wait(_LOCK_LOOKS):
            now = self.clock()
            if self._locked():
                if self.held_since is None:
                    self.held_since, what = now, self._what()
            elif self.held_since is not None:
                if now - self.held_since >= _NOTABLE_LOCK:
                    self.held.append((self.held_since, now - self.held_since, what))
                self.held_since = None

    def stop(self) -> None:
        self._done.set()
        self.join()

    def figures(self) -> dict[str, Any]:
        """The longest times, and what this backend had asked for when they began."""
        longest = sorted(self.held, key=lambda one: -one[1])
        return {
            "longest": [{"seconds": round(seconds, 2), "during": what} for _, seconds, what in longest[:8]],
            "over_1s": sum(seconds > 1.0 for _, seconds, _ in self.held),
            "over_5s": sum(seconds > 5.0 for _, seconds, _ in self.held),
        }

    def _locked(self) -> bool:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _RESERVED_BYTE, 1, 0)
        kind: int = struct.unpack("hhqqi", fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
