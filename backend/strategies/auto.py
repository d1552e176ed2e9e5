"""The default: uncertainty-weighted herding after a centroid cold start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.herding import TINY, coverage_by, greedy_coverage, similarity
from backend.strategies.kernels.uncertainty import mean_margin
from backend.strategies.kernels.views import CentredView
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class Auto(LabelledStrategy):
    """Picks, one after the other, the record that best covers what is uncertain and not yet covered.

    argmax_x of sum_i U_i [k(i, x) - m_i]_+ with U the margin uncertainty without temperature (multi-label: mean
    over classes of 1 - abs(2q - 1)), k = exp(-D2 / kernel_width) on the centred view, m_i the similarity of i to
    the nearest labelled record or earlier pick. If nothing is uncertain, U = 1 and it is plain coverage.

    Up to ``exact_below`` records the sum runs over all of them (labelled ones add 0) and every unlabelled record is
    a candidate. Above, both are one priority sample of ``sample_rows`` by U, with weights that keep the sum
    unbiased. Records outside the sample rank behind those in it, by U.
    Memory beside the inputs: exact_below^2 or sample_rows^2 float32 (400 MB, 256 MB), the vectors of these records,
    and a few vectors of length n; the features are read in chunks.

    Source: Bae et al., Uncertainty Herding, ICLR 2025, arXiv 2412.20644, with fixed kernel width and no temperature
    (label_efficiency.md, recipe).
    """

    name: ClassVar[str] = "auto"
    title: ClassVar[str] = "Automatic (uncertainty herding)"
    paper: ClassVar[str] = "Bae et al., ICLR 2025, arXiv 2412.20644"
    complexity: ClassVar[str] = "O(n (C + D) + r^2 D) time, O(n + r^2) memory, r = min(n, sample_rows)"

    kernel_width: float = option(1.0, "squared distance at which similarity has fallen to 1/e", low=1e-3, high=100.0)
    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    sample_rows: int = option(8_000, "records that stand for the pool above that", low=100, high=20_000)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        uncertainty = mean_margin(pool.require_probabilities(), multi_label=pool.multi_label)
        free = pool.unlabelled
        if not uncertainty[free].max() > 0:
            uncertainty = np.ones(len(pool))
        view = CentredView.of(pool.features)
        considered, weights = free, uncertainty[free]
        if len(pool) > self.exact_below:
            considered, weights = _priority_sample(free, weights, max(self.sample_rows, 4 * count), rng)
        covered = coverage_by(view, considered, np.flatnonzero(pool.labelled), self.kernel_width)
        kernel = similarity(view, considered, self.kernel_width)
        result = greedy_coverage(kernel, uncertainty[considered], weights, covered, count)
        picks = considered[result.picks]
        first = max(float(result.gains[0]), TINY)
        # Outside the sample U alone speaks, on a level below every record in it.
        utilities = uncertainty / uncertainty.max() - 2.0
        # A trace of U orders records that have nothing left to cover.
        utilities[considered] = result.remaining / first + 1e-9 * uncertainty[considered]
        return picks, utilities, {"gain": result.gains / first}


def _priority_sample(
    rows: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` rows, ascending, and the weights with which sums over them are unbiased for sums over all rows.

    Priority sampling: the largest weight / uniform stay, each weighing max(its weight, the first key left out).
    Source: Duffield, Lund and Thorup, J. ACM 54(6), 2007.
    """
    if len(rows) <= count:
        return rows, weights
    keys = weights / (1.0 - rng.random(len(rows)))
    order = np.argpartition(-keys, count)
    kept = np.sort(order[:count])
    return rows[kept], np.maximum(weights[kept], keys[order[count]])
