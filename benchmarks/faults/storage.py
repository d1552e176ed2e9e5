"""The disk below the store runs full; the store's file is damaged."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from benchmarks.faults.trial import PROJECT_FOLDER, Conditions, Trial, caught_up, note, trial
from tests.live.backend_process import wait_for

_SMALL = Conditions(tasks=1000, annotators=2, think=2.0, options={"queue_size": 60, "poll_seconds": 5})
_DISK = "48m"
# Seconds a worker on a damaged store is given to say so.
_LOOK_AFTER = 15.0


def disk_full(folder: Path, minutes: float = 3.0) -> dict[str, Any]:
    """A third of the time with room, a third without a byte left below MMAL_DATA_DIR, a third with room again."""
    with _small_disk(folder / PROJECT_FOLDER / "backend") as disk, trial(folder, _SMALL) as running:
        running.start()
        running.go_on(20 * minutes)
        before, sent = running.loop.status, len(running.team.answered)
        filler = _fill(disk)
        note("the disk is full")
        running.go_on(20 * minutes)
        figures = {
            **_what_is_told(running),
            "labels_learnt_while_full": running.loop.status.labels - before.labels,
            "labels_sent_while_full": len(running.team.answered) - sent,
        }
        filler.unlink()
        note("the disk has room again")
        began = time.monotonic()
        wait_for("labels sent meanwhile to be learnt", lambda: caught_up(running))
        figures["seconds_to_catch_up"] = round(time.monotonic() - began, 1)
        running.go_on(20 * minutes)
        return {**running.finish(), **figures, "error_gone_at_the_end": running.loop.status.last_error == ""}


def damaged(folder: Path, minutes: float = 0.5) -> dict[str, Any]:
    """A backup; then the store's file is damaged in four ways, one after the other, and restored each time."""
    with trial(folder, _SMALL) as running:
        running.start()
        running.go_on(60 * minutes)
        backup = folder / "store.tar.gz"
        made = running.loop.backend.cli("backup", str(backup))
        if made.returncode:
            raise RuntimeError(f"mmal backup failed: {made.stderr}")
        found = {}
        for name, damage in DAMAGES.items():
            running.go_on(60 * minutes)
            note(f"the store is damaged: {name}")
            found[name] = _damage_and_restore(running, backup, damage)
        running.go_on(60 * minutes)
        return {**running.finish(), "damages": found}


def _damage_and_restore(running: Trial, backup: Path, damage: Callable[[Path], None]) -> dict[str, Any]:
    backend = running.loop.backend
    backend.kill9()
    running.loop.services.store.engine.dispose()
    damage(backend.data_dir / "mmal.sqlite3")
    backend.start("worker")
    time.sleep(_LOOK_AFTER)
    figures = _what_is_told(running)
    backend.stop()
    # Refused while the worker that was just stopped may still be alive.
    wait_for("the store to be restored", lambda: backend.cli("restore", str(backup), "--replace").returncode == 0)
    backend.start()
    began = time.monotonic()
    wait_for("labels sent since the backup to be learnt", lambda: caught_up(running))
    return {
        **figures,
        "seconds_to_catch_up": round(time.monotonic() - began, 1),
    }


def _overwrite(at: float) -> Callable[[Path], None]:
    """64 KiB of noise at this share of the file."""

    def damage(file: Path) -> None:
        with open(file, "r+b") as opened:
            opened.seek(int(at * file.stat().st_size))
            opened.write(random.Random(0).randbytes(1 << 16))

    return damage


def _cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _remove(file: Path) -> None:
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "noise at the beginning": _overwrite(0.0),
    "noise in the middle": _overwrite(0.5),
    "second half missing": _cut_in_half,
    "file missing": _remove,
}


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    """A file system of its own in memory; needs root."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path) -> Path:
    """Take all that is left, to the last block."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return filler


def _what_is_told(running: Trial) -> dict[str, Any]:
    """What somebody on call sees: commands, health, log."""
    backend = running.loop.backend
    said = {name: backend.cli(name) for name in ("status", "doctor")}
    try:
        health = str(requests.get(f"{backend.url}/health", timeout=5).status_code)
    except requests.RequestException as error:
        health = type(error).__name__
    return {
        "commands": {name: _last_line(done.stdout + done.stderr) for name, done in said.items()},
        "commands_with_traceback": sum("Traceback" in done.stdout + done.stderr for done in said.values()),
        "health": health,
        "processes_alive": {name: process.poll() is None for name, process in backend.processes.items()},
        "log": _last_line(backend.log.read_text(errors="replace")),
    }


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("full", "damaged", "malformed"))]
    return (telling or lines or [""])[-1][:300]
