"""MaxHerding: the records that best cover the pool, whatever the head predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.coverage import cover, gaussian
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.kernels.views import view_of
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class MaxHerding(Strategy):
    """Picks k times argmax_x of sum_i [k(i, x) - m_i]_+, m_i the similarity of i to its nearest label or pick.

    k = exp(-|i - x|^2 / kernel_width). Needs no prediction: it is ``uherding`` with everything equally uncertain.
    Ours: the centred view (the paper: unit vectors of a self-supervised encoder); above ``exact_below`` records the
    sum and the candidates are one uniform sample of ``sample_rows``, and the other records rank behind it at random.

    Source: Bae, Noh and Sutherland, Generalized Coverage for More Robust Low-Budget Active Learning, ECCV 2024,
    algorithm 1.
    """

    name: ClassVar[str] = "maxherding"
    title: ClassVar[str] = "MaxHerding"
    paper: ClassVar[str] = "Bae et al., ECCV 2024, arXiv 2407.12212"
    complexity: ClassVar[str] = "O(n D + r^2 D) time, O(n + r^2) memory, r = min(n, sample_rows)"
    reason: ClassVar[str] = "typical"

    kernel_width: float = option(1.0, "squared distance at which similarity has fallen to 1/e", low=1e-3, high=100.0)
    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    sample_rows: int = option(8_000, "records that stand for the pool above that", low=100, high=20_000)
    view: str = option("centred", "vectors centred as in auto, or as they are", choices=("centred", "unit"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        most = len(pool) if len(pool) <= self.exact_below else max(self.sample_rows, 4 * count)
        rows, weights = uniform_sample(pool.unlabelled, most, rng)
        picks, gains, left = cover(
            view_of(pool.features, self.view),
            rows,
            np.ones(len(rows)),
            weights,
            np.flatnonzero(pool.labelled),
            gaussian(self.kernel_width),
            count,
        )
        utilities = rng.random(len(pool)) - 2.0
        utilities[rows] = left
        return picks, utilities, {"gain": gains}
