"""A set of pairs of which each seed draws some for the pool and some to be scored on."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.splits import drawn_sides

BATCH, BUDGET = 40, 200


@dataclass(frozen=True)
class DrawnSet(ABC):
    """Row i of everything is one pair.

    Attributes
    ----------
    name : what results are filed under
    features : "image", "text" -> (n, D_m) float32 unit rows, zero row where absent
    groups : (n,) numbers, equal for pairs that must lie on one side of a split
    pool, held_out : pairs of the pool of a seed, and pairs it is scored on (about)
    batch_size, budget : what is asked a round, and in all
    notes : what the reader of results must know
    """

    name: str
    features: Mapping[str, np.ndarray]
    groups: np.ndarray
    pool: int = field(kw_only=True)
    held_out: int = field(kw_only=True)
    batch_size: int = field(default=BATCH, kw_only=True)
    budget: int = field(default=BUDGET, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    _splits: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the arrays of the set and the sizes of the split."""
        digest = hashlib.sha256(repr((self.pool, self.held_out)).encode())
        for block in self._arrays():
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()[:16]

    @property
    def facts(self) -> dict[str, object]:
        """What results tell of the set."""
        return {
            "items": len(self),
            **self._own_facts(),
            "batch_size": self.batch_size,
            "budget": self.budget,
            "fingerprint": self.fingerprint,
        }

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

    @abstractmethod
    def _arrays(self) -> Iterable[np.ndarray]:
        """All that figures depend on, in a fixed order."""

    @abstractmethod
    def _own_facts(self) -> Mapping[str, object]:
        """Facts of this kind of set."""

    def _feature_arrays(self) -> list[np.ndarray]:
        return [self.features[modality] for modality in sorted(self.features)]
