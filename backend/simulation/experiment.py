"""Replays of labelled data: sets x scenarios x splits x arms x seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backend.errors import ReplayInvalid, StrategyUnsuited
from backend.simulation.arms import Arm
from backend.simulation.cells import Cell, Outcome, Unsuited, replay_key, rounded, run
from backend.simulation.labelled_set import LabelledSet
from backend.simulation.replay import replay
from backend.simulation.scenarios import SCENARIOS, Case, make_case
from backend.simulation.splits import SPLITS

__all__ = ["PROTOCOL", "Cell", "Outcome", "Plan", "Unsuited", "cell_key", "run", "run_cell"]

# Raise when a replay of the same options would give other figures; finished cells of another number are run again.
PROTOCOL = 1
FULL_EVERY = 5


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

    def refused(self, data: LabelledSet) -> Iterator[tuple[str, str]]:
        """(arm or scenario, why) of what the set does not admit."""
        for arm in self.arms:
            try:
                Arm.parse(arm).check(
                    n_classes=len(data.classes), modalities=sorted(data.features), multi_label=data.multi_label
                )
            except StrategyUnsuited as error:
                yield arm, str(error)
        for scenario in self.scenarios:
            try:
                case = make_case(data, scenario, self.splits[0], self.first_seed)
            except ReplayInvalid as error:
                yield scenario, str(error)
                continue
            pool = int((~(case.holdout | case.left_out)).sum())
            if pool < data.budget:
                yield scenario, f"its pool has {pool} items and the budget is {data.budget}; use a smaller --budget"

    def key(self, cell: Cell, data: LabelledSet) -> str:
        """``cell_key`` with the plan's audit share."""
        return cell_key(cell, data, self.audit_share)

    def run_cell(self, cell: Cell, data: LabelledSet) -> dict[str, Any]:
        """``run_cell`` with the plan's audit share."""
        return run_cell(cell, data, self.audit_share)


def cell_key(cell: Cell, data: LabelledSet, audit_share: float) -> str:
    """What a finished replay is found by."""
    arm = Arm.parse(cell.arm, audit_share=audit_share).resolved()
    return replay_key(cell, PROTOCOL, arm, data.fingerprint, data.batch_size, data.budget)


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
        "task": "multi_label" if data.multi_label else "classification",
        **vars(cell),
        "batch_size": data.batch_size,
        "classes": len(data.classes),
        "pool": int((~(case.holdout | case.left_out)).sum()),
        "scored_on": int(case.holdout.sum()),
        "n_labels": curve.n_labels.tolist(),
        "measures": {name: rounded(values) for name, values in measures.items()},
    }


# Splitting takes longer than many a replay, and arms of a seed follow one another.
@lru_cache(maxsize=2)
def _cached_case(name: str, fingerprint: str, scenario: str, split: str, seed: int) -> Case:
    return make_case(_SETS[name], scenario, split, seed)


def _case(data: LabelledSet, scenario: str, split: str, seed: int) -> Case:
    _SETS[data.name] = data
    return _cached_case(data.name, data.fingerprint, scenario, split, seed)


_SETS: dict[str, LabelledSet] = {}
