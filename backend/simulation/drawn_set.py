"""A set of pairs of which each seed draws some for the pool and some to be scored on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.replay_set import ReplaySet
from backend.simulation.splits import drawn_sides

BATCH, BUDGET = 40, 200


@dataclass(frozen=True)
class DrawnSet(ReplaySet):
    """Row i of everything is one pair.

    Attributes
    ----------
    groups : (n,) numbers, equal for pairs that must lie on one side of a split
    pool, held_out : pairs of the pool of a seed, and pairs it is scored on (about)
    """

    groups: np.ndarray
    pool: int = field(kw_only=True)
    held_out: int = field(kw_only=True)
    batch_size: int = field(default=BATCH, kw_only=True)
    budget: int = field(default=BUDGET, kw_only=True)
    _splits: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.groups)

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the pool and rows to be scored on, ascending; whole groups at random until the sizes are reached.

        Raises
        ------
        ReplayInvalid
            The set is too small.
        """
        known = self._splits.get(seed)
        if known is None:
            known = self._splits[seed] = drawn_sides(self.name, self.groups, self.held_out, self.pool, seed)
        return known

    def check_plan(self, pool: int, least_batch: int) -> None:
        """Refuse a batch or a budget that a pool of so many pairs cannot serve.

        Raises
        ------
        ReplayInvalid
        """
        if self.batch_size < least_batch or not self.batch_size <= self.budget <= pool:
            raise ReplayInvalid(
                f"batch_size={self.batch_size}, budget={self.budget} with {pool} pairs in the pool of {self.name};"
                f" the batch must be {least_batch} at least and the budget between the batch and the pool"
            )

    def _arrays(self) -> Iterable[np.ndarray]:
        return [np.frombuffer(repr((self.pool, self.held_out)).encode(), np.uint8)]
