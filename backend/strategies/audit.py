"""A random audit share that any strategy can wear: uniform draws inside each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backend.errors import InvalidOption
from backend.strategies.base import Strategy
from backend.strategies.explain import own_parts
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class Audited(Strategy):
    """The strategy ``inner`` with a part ``share`` of each batch replaced by a control sample.

    The control sample is a uniform draw from all unlabelled records, made before the strategy chooses, so that what
    is estimated from its labels holds for the pool. The strategy fills the rest with its first picks that are not
    drawn already. Controls stand at random positions of the batch. Part ``control``: 1 for them, 0 for the others;
    what only the strategy could tell about a control is NaN.

    Source: the guard of label_efficiency.md, recipe 7, 2026; how positions and rounding are drawn is ours.
    """

    name: ClassVar[str] = "audit"
    title: ClassVar[str] = "Random audit share"
    paper: ClassVar[str] = "simple random sampling inside the batch"
    complexity: ClassVar[str] = "O(n) beside the strategy's"

    inner: Strategy
    share: float

    def __post_init__(self) -> None:
        check_share(self.share)

    def check(self, **project: Any) -> None:
        """As the strategy's own."""
        self.inner.check(**project)

    def reason_in(self, pool: Pool) -> str:
        """The strategy's own."""
        return self.inner.reason_in(pool)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        controls = rng.choice(pool.unlabelled, control_count(self.share, count, rng), replace=False)
        # Drawn now, so that they are the same whatever the strategy draws.
        positions = [int(rng.integers(0, count - len(controls) + j + 1)) for j in range(len(controls))]
        chosen = self.inner.select(pool, count, rng)
        # Positions in the strategy's batch; -1 stands for a control.
        kept = np.flatnonzero(~np.isin(chosen.indices, controls))[: count - len(controls)].tolist()
        batch = chosen.indices[kept].tolist()
        for control, position in zip(controls.tolist(), positions, strict=True):
            batch.insert(position, control)
            kept.insert(position, -1)
        parts = aligned(own_parts(chosen.parts), np.array(kept))
        parts["control"] = np.array([float(place < 0) for place in kept])
        return np.array(batch, dtype=np.int64), chosen.utilities, parts


def check_share(share: float) -> None:
    """Raise InvalidOption for what is no part of a batch."""
    wrong_kind = isinstance(share, bool) or not isinstance(share, int | float)
    if wrong_kind or not 0.0 <= share <= 1.0:
        raise InvalidOption(f"audit_share is {share!r}; it is a part of the batch, between 0 and 1")


def control_count(share: float, size: int, rng: np.random.Generator) -> int:
    """How many of ``size`` picks are drawn: rounded at random, so that the share holds over many small batches.

    Of several picks one at least is left to the strategy, unless the share is 1; a single one is either.
    """
    if share >= 1.0:
        return size
    wanted = share * size
    drawn = int(wanted) + int(rng.random() < wanted % 1)
    return drawn if size <= 1 else min(drawn, size - 1)


def aligned(parts: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    """The parts at these places of the batch they belong to, NaN where the place is -1."""
    known = places >= 0
    out = {}
    for name, values in parts.items():
        out[name] = np.full(len(places), np.nan)
        out[name][known] = values[places[known]]
    return out
