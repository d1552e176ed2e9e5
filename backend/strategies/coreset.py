"""CoreSet: the records farthest from everything labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.kcenter import lazy_k_center, most_central
from backend.strategies.kernels.views import view_of
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class CoreSet(Strategy):
    """k-center greedy: k times argmax_x min_c |x - c|, c over labelled records and earlier picks.

    x is the concatenation of the unit vectors of all modalities, an absent one a zero vector. Needs no prediction.
    Ties: lowest row. While nothing is labelled the first pick is the record nearest the mean (ours; the paper
    starts from labels). Utilities are squared distances to the nearest centre after the batch, or upper bounds.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018,
    algorithm 1, on fused features as in bmmal.md section 3; lazy evaluation: ``kernels.kcenter``.
    """

    name: ClassVar[str] = "coreset"
    title: ClassVar[str] = "CoreSet (k-center greedy)"
    paper: ClassVar[str] = "Sener and Savarese, ICLR 2018, arXiv 1708.00489"
    complexity: ClassVar[str] = "O(n (k + L) D) time as matrix products, less where bounds hold; O(n) memory"
    reason: ClassVar[str] = "uncovered"

    view: str = option("unit", "vectors as they are, or centred as in auto", choices=("unit", "centred"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        view = view_of(pool.features, self.view)
        open_ = ~pool.labelled
        start = [] if pool.labelled.any() else [most_central(view, open_)]
        centres = np.concatenate([np.flatnonzero(pool.labelled), np.array(start, dtype=np.int64)])
        open_[start] = False
        found = lazy_k_center(view, count - len(start), centres, open_)
        picks = np.concatenate([np.array(start, dtype=np.int64), found.picks])
        # The first pick of all has no centre to be far from; it is told as as far as the next.
        radii = np.concatenate([found.radii[: len(start)] if len(found.radii) else np.zeros(len(start)), found.radii])
        return picks, found.bounds, {"radius": radii}
