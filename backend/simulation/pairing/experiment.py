"""Which replays of pairing are wanted, and one of them as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import ReplayInvalid, StrategyUnsuited
from backend.simulation.arms import Arm
from backend.simulation.cells import Cell, replay_key, rounded
from backend.simulation.pairing.pair_sets import PairingSet
from backend.simulation.pairing.pools import SCENARIOS, drawn_pools
from backend.simulation.pairing.replay import replay
from backend.strategies import create_strategy, strategy_names
from backend.strategies.pairing import MODALITIES, PairStrategy

# Raise when a replay of the same options would give other figures; finished cells of another number are run again.
PROTOCOL = 2
RANDOM = "pair_random"
TASK = "pairing"
# Equal texts and pictures, texts that differ in digits only, and twins lie on one side.
SPLIT = "grouped"


@dataclass(frozen=True)
class PairingPlan:
    """What to replay; the first round of every arm is the same random one.

    Raises
    ------
    ReplayInvalid
        A scenario does not exist, an arm cannot be read or names a first round, or a number makes no sense.
    UnknownStrategy, UnknownOption, InvalidOption
    """

    arms: Sequence[str]
    scenarios: Sequence[str] = ("plain",)
    seeds: int = 10
    first_seed: int = 0
    audit_share: float = 0.1

    def __post_init__(self) -> None:
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise ReplayInvalid(f"scenario {name!r} does not exist for pairing; choose of {', '.join(SCENARIOS)}")
        if self.seeds < 1 or self.first_seed < 0:
            raise ReplayInvalid(f"seeds={self.seeds}, first_seed={self.first_seed}; use at least 1 and 0")
        for text in self.arms:
            if Arm.parse(text).cold:
                raise ReplayInvalid(f"arm {text!r}: the first round of pairing is random for all; write NAME alone")
            self._strategy(text)

    def cells(self, data: PairingSet) -> Iterator[Cell]:
        """The replays of one set; those that share a first round follow one another."""
        for scenario in self.scenarios:
            for seed in self._seeds:
                for arm in dict.fromkeys((RANDOM, *self.arms)):
                    yield Cell(data.name, scenario, SPLIT, arm, seed)

    def refused(self, data: PairingSet) -> Iterator[tuple[str, str]]:
        """(arm or scenario, why) of what the set does not admit."""
        for text in self.arms:
            try:
                self._strategy(text).check(multi_label=False, n_classes=0, modalities=MODALITIES, pairs=True)
            except StrategyUnsuited as error:
                yield text, str(error)
        for scenario in self.scenarios:
            try:
                smaller = min(drawn_pools(data, scenario, s).smaller for s in self._seeds)
                why = f"its smaller pool has {smaller} items and the budget is {data.budget}; use a smaller --budget"
            except ReplayInvalid as error:
                smaller, why = -1, str(error)
            if smaller < data.budget:
                yield scenario, why

    def key(self, cell: Cell, data: PairingSet) -> str:
        """What a finished replay is found by."""
        arm = repr(self._strategy(cell.arm))
        return replay_key(cell, TASK, PROTOCOL, arm, data.fingerprint, data.batch_size, data.budget)

    def run_cell(self, cell: Cell, data: PairingSet) -> dict[str, Any]:
        """One replay: the cell, and a list over rounds of each measure (null where it was not measured)."""
        rounds = replay(data, cell.scenario, self._strategy(cell.arm), seed=cell.seed)
        pools = drawn_pools(data, cell.scenario, cell.seed)
        names = {name: None for measured in rounds for name in measured if name != "n_labels"}
        return {
            "task": TASK,
            **vars(cell),
            "batch_size": data.batch_size,
            "classes": 0,
            "pool": pools.hidden,
            "scored_on": len(pools.tested),
            "n_labels": [int(measured["n_labels"]) for measured in rounds],
            "measures": {name: rounded([measured.get(name, float("nan")) for measured in rounds]) for name in names},
        }

    @property
    def _seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    def _strategy(self, text: str) -> PairStrategy:
        arm = Arm.parse(text)
        made: PairStrategy = create_strategy(arm.strategy, audit_share=self.audit_share, **arm.options)
        return made


def usual_pair_arms() -> list[str]:
    """Random; what the method is held against: core-sets, margins, three steps, hard negatives; and ours."""
    return [
        RANDOM,
        "pair_coreset",
        "pair_coreset:directions=image",
        "pair_margin",
        "three_step",
        "three_step:space=unimodal",
        "three_step:space=both",
        "hard_negative",
        "pair_mix",
        "pair_likely",
    ]


def all_pair_arms() -> list[str]:
    """The usual ones, the core-set of texts, and every other strategy for pairs."""
    arms = [*usual_pair_arms(), "pair_coreset:directions=text"]
    return list(dict.fromkeys([*arms, *strategy_names(pairs=True)]))
