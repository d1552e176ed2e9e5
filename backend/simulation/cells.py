"""Replays by the hundred: in parallel, each kept as soon as it is done, none done twice."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from backend.errors import SimulationError

CELLS_FILE = "cells.jsonl"
DIGITS = 5
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Cell:
    """One replay."""

    dataset: str
    scenario: str
    split: str
    arm: str
    seed: int


def replay_key(cell: Cell, *depends_on: object) -> str:
    """What a finished replay is found by: it changes with everything that its figures depend on but the code.

    depends_on: JSON values, among them all options of the arm: its name stands for them only until a default changes.
    """
    return hashlib.sha256(json.dumps([*vars(cell).values(), *depends_on]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Unsuited:
    """An arm or scenario that a set does not admit, and why."""

    dataset: str
    what: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """cells: what ``run_cell`` returned, of all cells of the plan; unsuited: what was left out."""

    cells: list[dict[str, Any]]
    unsuited: list[Unsuited]


class DataSet(Protocol):
    """What is replayed: its name in the results, what their reader must know, and the facts told with them."""

    @property
    def name(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def facts(self) -> Mapping[str, object]: ...


D = TypeVar("D", bound=DataSet)
Seen = TypeVar("Seen", bound=DataSet, contravariant=True)


class Replays(Protocol[Seen]):
    """Which replays are wanted, and how one is done."""

    def cells(self, data: Seen) -> Iterator[Cell]:
        """The replays of one set; those that share a split follow one another."""

    def refused(self, data: Seen) -> Iterator[tuple[str, str]]:
        """(arm or scenario, why) of what the set does not admit."""

    def key(self, cell: Cell, data: Seen) -> str:
        """What a finished replay is found by."""

    def run_cell(self, cell: Cell, data: Seen) -> dict[str, Any]:
        """One replay as JSON."""


def run(sets: Sequence[D], plan: Replays[D], folder: Path, *, jobs: int = 2, fresh: bool = False) -> Outcome:
    """Replay what the folder does not hold yet, and return all of the plan.

    Each finished replay is a line of ``cells.jsonl`` in the folder; a later call with the same options takes it
    from there. The line's key does not know the code of a strategy: after a change of code use ``fresh``.

    Raises
    ------
    SimulationError
        A replay failed; those that finished are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {} if fresh else _read_cells(folder / CELLS_FILE)
    wanted: dict[str, Cell] = {}
    unsuited: list[Unsuited] = []
    for data in sets:
        refused = dict(plan.refused(data))
        unsuited += [Unsuited(data.name, what, why) for what, why in refused.items()]
        for cell in plan.cells(data):
            if cell.arm not in refused and cell.scenario not in refused:
                wanted[plan.key(cell, data)] = cell
    missing = {key: cell for key, cell in wanted.items() if key not in kept}
    with open(folder / CELLS_FILE, "w" if fresh else "a", encoding="utf-8") as file:
        file.write("\n" if file.tell() else "")  # a killed process may have left half a line
        progress = tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="replays", disable=None)
        with progress:
            for key, found in _replays(missing, sets, plan, jobs):
                kept[key] = found
                file.write(json.dumps({"key": key, **found}) + "\n")
                file.flush()
                progress.update()
    return Outcome([kept[key] for key in wanted], unsuited)


def rounded(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Numbers for JSON; null for what is no number."""
    return [round(float(value), DIGITS) if np.isfinite(value) else None for value in values]


def _replays(
    missing: Mapping[str, Cell], sets: Sequence[D], plan: Replays[D], jobs: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, result) of each cell as it ends; raises SimulationError at the end if any failed."""
    by_name = {data.name: data for data in sets}
    failed: list[str] = []
    if jobs <= 1:
        for key, cell in missing.items():
            yield key, plan.run_cell(cell, by_name[cell.dataset])
        return
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(jobs, context, initializer=_receive, initargs=(by_name, plan)) as workers,
    ):
        todo = iter(missing.items())
        running: dict[Future[dict[str, Any]], tuple[str, Cell]] = {}
        while True:
            # Few at a time: a break-off should not wait for all that was handed out.
            while len(running) < 2 * jobs and (following := next(todo, None)) is not None:
                running[workers.submit(_run_received, following[1])] = following
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                key, cell = running.pop(done)
                error = done.exception()
                if error is None:
                    yield key, done.result()
                else:
                    failed.append(f"{cell}: {type(error).__name__}: {error}")
    if failed:
        raise SimulationError(f"{len(failed)} replays failed, the others are kept. The first: {failed[0]}")


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The environment in which child processes start with one BLAS thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# What a child process was given at its start.
_SETS: dict[str, Any] = {}
_PLAN: list[Any] = []


def _receive(sets: Mapping[str, Any], plan: Any) -> None:
    _SETS.update(sets)
    _PLAN[:] = [plan]


def _run_received(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = _PLAN[0].run_cell(cell, _SETS[cell.dataset])
    return found


def _read_cells(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            cell = json.loads(line)
            found[cell.pop("key")] = cell
        except (ValueError, KeyError):
            continue  # the line that a killed process was writing
    return found
