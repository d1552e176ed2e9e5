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
    a candidate. Above, the sum runs over ``reference_rows`` and the candidates are ``shortlist_rows``, both drawn
    without replacement with probability proportional to U. Records outside the shortlist rank behind it, by U.
    Memory beside the inputs: exact_below^2 (400 MB) or reference_rows x shortlist_rows float32, their vectors, and
    vectors of length n.

    Source: Bae et al., Uncertainty Herding, ICLR 2025, arXiv 2412.20644, with fixed kernel width and no temperature
    (label_efficiency.md, recipe).
    """

    name: ClassVar[str] = "auto"
    title: ClassVar[str] = "Automatic (uncertainty herding)"
    paper: ClassVar[str] = "Bae et al., ICLR 2025, arXiv 2412.20644"
    complexity: ClassVar[str] = "O(n (C + D) + r s D + changed rows x s a pick) time, O(n + r s) memory"

    kernel_width: float = option(1.0, "squared distance at which similarity has fallen to 1/e", low=1e-3, high=100.0)
    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    reference_rows: int = option(5_000, "records that stand for the pool above that", low=100, high=20_000)
    shortlist_rows: int = option(5_000, "candidates considered above that", low=100, high=20_000)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        uncertainty = mean_margin(pool.require_probabilities(), multi_label=pool.multi_label)
        free = pool.unlabelled
        if not uncertainty[free].max() > 0:
            uncertainty = np.ones(len(pool))
        view = CentredView.of(pool.features)
        if len(pool) <= self.exact_below:
            reference = candidates = free
            weights = uncertainty[free]
        else:
            reference = _draw(free, uncertainty, self.reference_rows, rng)
            candidates = _draw(free, uncertainty, max(self.shortlist_rows, 4 * count), rng)
            weights = np.ones(len(reference))
        covered = coverage_by(view, reference, np.flatnonzero(pool.labelled), self.kernel_width)
        kernel = similarity(view, reference, candidates, self.kernel_width)
        result = greedy_coverage(kernel, weights, covered, count, uncertainty[candidates])
        picks = candidates[result.picks]
        first = max(float(result.gains[0]), TINY)
        # Outside the shortlist U alone speaks, on a level below every candidate.
        utilities = uncertainty / uncertainty.max() - 2.0
        # A trace of U orders candidates that have nothing left to cover.
        utilities[candidates] = result.remaining / first + 1e-9 * uncertainty[candidates]
        return picks, utilities, {"gain": result.gains / first}


def _draw(rows: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of the rows without replacement, weighted (Efraimidis and Spirakis, 2006), ascending."""
    if len(rows) <= count:
        return rows
    keys = rng.exponential(size=len(rows)) / np.maximum(weights[rows], 1e-12)
    return np.sort(rows[np.argpartition(keys, count)[:count]])
