"""What every set that replays run on has: what is asked of it, and the fingerprint finished replays are found by."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class ReplaySet(ABC):
    """Row i of everything is one item.

    Attributes
    ----------
    name : what results are filed under
    features : "image", "text" -> (n, D_m) float32 unit rows, zero row where absent
    batch_size, budget : what is asked a round, and in all
    notes : what the reader of results must know
    """

    name: str
    features: Mapping[str, np.ndarray]
    batch_size: int = field(kw_only=True)
    budget: int = field(kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def __len__(self) -> int: ...

    @cached_property
    def fingerprint(self) -> str:
        """Changes with all that figures depend on but the plan."""
        digest = hashlib.sha256()
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

    @abstractmethod
    def _arrays(self) -> Iterable[np.ndarray]:
        """All that figures depend on, in a fixed order."""

    @abstractmethod
    def _own_facts(self) -> Mapping[str, object]:
        """Facts of this kind of set."""

    def _feature_arrays(self) -> list[np.ndarray]:
        return [self.features[modality] for modality in sorted(self.features)]
