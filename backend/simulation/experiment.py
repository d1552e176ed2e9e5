"""Many replays: sets x scenarios x splits x arms x seeds, in parallel, each kept as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backend.errors import ReplayInvalid, SimulationError, StrategyUnsuited
from backend.simulation.arms import Arm
from backend.simulation.labelled_set import LabelledSet
from backend.simulation.replay import replay
from backend.simulation.scenarios import SCENARIOS, Case, make_case
from backend.simulation.splits import SPLITS

# Raise when a replay of the same options would give other figures; finished cells of another number are run again.
PROTOCOL = 1
CELLS_FILE = "cells.jsonl"
FULL_EVERY = 5
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


@dataclass(frozen=True)
class Plan:
    """What to replay.

    Raises
    ------
    ReplayInvalid
        A scenario or split does not exist, an arm cannot be read, or a number makes no sense.
    UnknownStrategy, UnknownOption, InvalidOption
    """

    arms: Sequence[str]
    scenarios: Sequence[str] = ("plain",)
    splits: Sequence[str] = ("random",)
    seeds: int = 10
    first_seed: int = 0
    audit_share: float = 0.0

    def __post_init__(self) -> None:
        for given, known, what in ((self.scenarios, SCENARIOS, "scenario"), (self.splits, SPLITS, "split")):
            for name in given:
                if name not in known:
                    raise ReplayInvalid(f"{what} {name!r} does not exist; choose of {', '.join(known)}")
        if self.seeds < 1 or self.first_seed < 0:
            raise ReplayInvalid(f"seeds={self.seeds}, first_seed={self.first_seed}; use at least 1 and 0")
        for arm in self.arms:
            Arm.parse(arm).strategies()

    def cells(self, data: LabelledSet) -> Iterator[Cell]:
        """The replays of one set; those that share a split follow one another."""
        for split in self.splits:
            for scenario in self.scenarios:
                for seed in range(self.first_seed, self.first_seed + self.seeds):
                    for arm in dict.fromkeys(("random", *self.arms)):
                        yield Cell(data.name, scenario, split, arm, seed)


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


def run(sets: Sequence[LabelledSet], plan: Plan, folder: Path, *, jobs: int = 2, fresh: bool = False) -> Outcome:
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
        refused = dict(_refused(data, plan))
        unsuited += [Unsuited(data.name, what, why) for what, why in refused.items()]
        for cell in plan.cells(data):
            if cell.arm not in refused and cell.scenario not in refused:
                wanted[cell_key(cell, data, plan.audit_share)] = cell
    missing = {key: cell for key, cell in wanted.items() if key not in kept}
    with open(folder / CELLS_FILE, "w" if fresh else "a", encoding="utf-8") as file:
        file.write("\n" if file.tell() else "")  # a killed process may have left half a line
        progress = tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="replays", disable=None)
        with progress:
            for key, found in _replays(missing, sets, plan.audit_share, jobs):
                kept[key] = found
                file.write(json.dumps({"key": key, **found}) + "\n")
                file.flush()
                progress.update()
    return Outcome([kept[key] for key in wanted], unsuited)


def cell_key(cell: Cell, data: LabelledSet, audit_share: float) -> str:
    """What a finished replay is found by: it changes with everything that its figures depend on but the code."""
    parts = [PROTOCOL, *vars(cell).values(), data.fingerprint, data.batch_size, data.budget, audit_share]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def run_cell(cell: Cell, data: LabelledSet, audit_share: float = 0.0) -> dict[str, Any]:
    """One replay as JSON: the cell, and a list over rounds of each measure (null where it was not measured)."""
    case = _case(data, cell.scenario, cell.split, cell.seed)
    curve = replay(
        case.features,
        case.labels,
        data.classes,
        case.holdout,
        cell.arm,
        batch_size=data.batch_size,
        budget=data.budget,
        seed=cell.seed,
        audit_share=audit_share,
        answers=case.answers,
        left_out=case.left_out,
        full_every=FULL_EVERY,
    )
    measures = {"accuracy": curve.accuracy, "macro_f1": curve.macro_f1, **curve.measures}
    return {
        **vars(cell),
        "batch_size": data.batch_size,
        "classes": len(data.classes),
        "pool": int((~(case.holdout | case.left_out)).sum()),
        "scored_on": int(case.holdout.sum()),
        "n_labels": curve.n_labels.tolist(),
        "measures": {name: _rounded(values) for name, values in measures.items()},
    }


# Splitting takes longer than many a replay, and arms of a seed follow one another.
@lru_cache(maxsize=2)
def _cached_case(name: str, fingerprint: str, scenario: str, split: str, seed: int) -> Case:
    return make_case(_SETS[name], scenario, split, seed)


def _case(data: LabelledSet, scenario: str, split: str, seed: int) -> Case:
    _SETS[data.name] = data
    return _cached_case(data.name, data.fingerprint, scenario, split, seed)


_SETS: dict[str, LabelledSet] = {}


def _refused(data: LabelledSet, plan: Plan) -> Iterator[tuple[str, str]]:
    """(arm or scenario, why) of what the set does not admit."""
    for arm in plan.arms:
        try:
            Arm.parse(arm).check(n_classes=len(data.classes), modalities=sorted(data.features))
        except StrategyUnsuited as error:
            yield arm, str(error)
    for scenario in plan.scenarios:
        try:
            case = make_case(data, scenario, plan.splits[0], plan.first_seed)
        except ReplayInvalid as error:
            yield scenario, str(error)
            continue
        pool = int((~(case.holdout | case.left_out)).sum())
        if pool < data.budget:
            yield scenario, f"its pool has {pool} items and the budget is {data.budget}; use a smaller --budget"


def _replays(
    missing: Mapping[str, Cell], sets: Sequence[LabelledSet], audit_share: float, jobs: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, result) of each cell as it ends; raises SimulationError at the end if any failed."""
    by_name = {data.name: data for data in sets}
    failed: list[str] = []
    if jobs <= 1:
        for key, cell in missing.items():
            yield key, run_cell(cell, by_name[cell.dataset], audit_share)
        return
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(jobs, context, initializer=_receive, initargs=(by_name, audit_share)) as workers,
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


_AUDIT_SHARE = 0.0


def _receive(sets: Mapping[str, LabelledSet], audit_share: float) -> None:
    global _AUDIT_SHARE
    _SETS.update(sets)
    _AUDIT_SHARE = audit_share


def _run_received(cell: Cell) -> dict[str, Any]:
    return run_cell(cell, _SETS[cell.dataset], _AUDIT_SHARE)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), DIGITS) for value in values]


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
