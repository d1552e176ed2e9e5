"""Which replays of retrieval are wanted, and one of them as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import ReplayInvalid, StrategyUnsuited
from backend.simulation.arms import Arm
from backend.simulation.cells import Cell, replay_key, rounded
from backend.simulation.retrieval.replay import SCENARIOS, recipe, replay
from backend.simulation.retrieval.retrieval_sets import RetrievalSet
from backend.strategies import strategy_names

# Raise when a replay of the same options would give other figures; finished cells of another number are run again.
PROTOCOL = 1
TASK = "retrieval"
# Equal texts and pictures, and texts that differ in digits only, lie on one side.
SPLIT = "grouped"


@dataclass(frozen=True)
class RetrievalPlan:
    """What to replay; the first batch of every arm is the same random one.

    Raises
    ------
    ReplayInvalid
        A scenario does not exist, an arm cannot be read or names a first batch, or a number makes no sense.
    UnknownStrategy, UnknownOption, InvalidOption
    """

    arms: Sequence[str]
    scenarios: Sequence[str] = ("plain",)
    seeds: int = 10
    first_seed: int = 0
    audit_share: float = 0.0

    def __post_init__(self) -> None:
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise ReplayInvalid(
                    f"scenario {name!r} does not exist for retrieval; choose of {', '.join(SCENARIOS)}"
                )
        if self.seeds < 1 or self.first_seed < 0:
            raise ReplayInvalid(f"seeds={self.seeds}, first_seed={self.first_seed}; use at least 1 and 0")
        for text in self.arms:
            arm = Arm.parse(text, audit_share=self.audit_share)
            if arm.cold:
                raise ReplayInvalid(f"arm {text!r}: the first batch of retrieval is random for all; write NAME alone")
            arm.strategies()

    def cells(self, data: RetrievalSet) -> Iterator[Cell]:
        """The replays of one set; those that share a first batch follow one another."""
        for scenario in self.scenarios:
            for seed in range(self.first_seed, self.first_seed + self.seeds):
                for arm in dict.fromkeys(("random", *self.arms)):
                    yield Cell(data.name, scenario, SPLIT, arm, seed)

    def refused(self, data: RetrievalSet) -> Iterator[tuple[str, str]]:
        """(arm or scenario, why) of what is not defined for pairs with several labels, and of too small a set."""
        for text in self.arms:
            _, strategy = Arm.parse(text).strategies()
            try:
                strategy.check(
                    multi_label=True,
                    n_classes=len(data.classes),
                    modalities=sorted(data.features),
                    shared_space=True,
                )
            except StrategyUnsuited as error:
                yield text, str(error)
        try:
            pool = len(data.split(self.first_seed)[0])
            why = f"its pool has {pool} pairs and the budget is {data.budget}; use a smaller --budget"
        except ReplayInvalid as error:
            pool, why = -1, str(error)
        if pool < data.budget:
            yield from ((scenario, why) for scenario in self.scenarios)

    def key(self, cell: Cell, data: RetrievalSet) -> str:
        """What a finished replay is found by."""
        model, arm = recipe(cell.scenario), Arm.parse(cell.arm, audit_share=self.audit_share).resolved()
        of_model, of_data = (model.name, repr(model.options)), (data.fingerprint, data.batch_size, data.budget)
        return replay_key(cell, TASK, PROTOCOL, arm, *of_model, *of_data)

    def run_cell(self, cell: Cell, data: RetrievalSet) -> dict[str, Any]:
        """One replay: the cell, and a list over rounds of each measure."""
        _, strategy = Arm.parse(cell.arm, audit_share=self.audit_share).strategies()
        rounds = replay(data, cell.scenario, strategy, seed=cell.seed)
        pool, tested = data.split(cell.seed)
        names = [name for name in rounds[0] if name != "n_labels"]
        return {
            "task": TASK,
            **vars(cell),
            "batch_size": data.batch_size,
            "classes": len(data.classes),
            "pool": len(pool),
            "scored_on": len(tested),
            "n_labels": [int(measured["n_labels"]) for measured in rounds],
            "measures": {name: rounded([measured[name] for measured in rounds]) for name in names},
        }


def usual_retrieval_arms() -> list[str]:
    """Random, ASCMR with three weights of likeness and without the pairs in most conflict, its baselines, ours."""
    baselines = ("entropy", "bald", "coreset", "badge", "cdal", "deepfool", "query_bank", "cross_modal_similarity")
    ours = ("auto", "bmmal", "margin", "typiclust", "maxherding")
    weights = ("ascmr:density_weight=0.0", "ascmr:density_weight=5.0", "ascmr:conflict_cap=0.2")
    return ["random", *baselines, *ours, "ascmr", *weights]


def all_retrieval_arms() -> list[str]:
    """The usual ones and every other strategy for records; those of one label a record are refused with a word."""
    return list(dict.fromkeys([*usual_retrieval_arms(), *strategy_names()]))
