"""The default: uncertainty-weighted herding after a centroid cold start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.coverage import cover, gaussian
from backend.strategies.kernels.predicted_view import PredictedView
from backend.strategies.kernels.sampling import priority_sample
from backend.strategies.kernels.uncertainty import mean_margin, rarity
from backend.strategies.kernels.views import CentredView, View
from backend.strategies.pool import Pool

# The reserve is chosen with the batch up to this length, batch included, or up to so many batches.
JOINT_LENGTH = 200
JOINT_BATCHES = 5


@dataclass(frozen=True)
class Auto(LabelledStrategy):
    """Picks, one after the other, the record that best covers what is uncertain and not yet covered.

    argmax_x of sum_i U_i [k(i, x) - m_i]_+ with U the margin uncertainty without temperature, times the expected
    (n_c + 1)^-rarity of the record's class, n_c the labels that the class has: a long tail gets its share. (Several
    labels a record: U the mean over classes of 1 - abs(2q - 1), no rarity and no H2, which were not measured there.)
    k = exp(-(D2 + prediction_weight H2) / kernel_width), D2 the squared distance on the centred view,
    H2 = |sqrt(p_i) - sqrt(p_x)|^2 that of the predictions, m_i the similarity of i to the nearest labelled record or
    earlier pick. So a label stands for records that look alike and are taken for the same. If nothing is uncertain,
    U = 1 and it is plain coverage.

    The choice runs on behind the batch, up to max(200, 5 batches) or half of the candidates: the reserve is as
    diverse as the batch, whoever outruns the rounds. The rest of the pool follows by the gain that is left.

    Up to ``exact_below`` records the sum runs over all of them (labelled ones add 0) and every unlabelled record is
    a candidate. Above, both are one priority sample of ``sample_rows`` by U, with weights that keep the sum
    unbiased. Records outside the sample rank behind those in it, by U.
    Memory beside the inputs: exact_below^2 or sample_rows^2 float32 (400 MB, 256 MB), the vectors of these records,
    and a few vectors of length n; the features are read in chunks.

    Source: Bae et al., Uncertainty Herding, ICLR 2025, arXiv 2412.20644, with fixed kernel width and no temperature
    (label_efficiency.md, recipe). H2 in the kernel, rarity as an expectation and the joint reserve are ours.
    """

    name: ClassVar[str] = "auto"
    title: ClassVar[str] = "Automatic (uncertainty herding)"
    paper: ClassVar[str] = "Bae et al., ICLR 2025, arXiv 2412.20644"
    complexity: ClassVar[str] = "O(n (C + D) + r^2 (C + D)) time, O(n + r^2) memory, r = min(n, sample_rows)"

    kernel_width: float = option(1.0, "squared distance at which similarity has fallen to 1/e", low=1e-3, high=100.0)
    prediction_weight: float = option(
        0.5, "how much unlike predictions set records apart; 0: features alone", low=0.0, high=100.0
    )
    rarity: float = option(
        0.5, "how much records of classes with many labels count less; 0: not at all", low=0.0, high=4.0
    )
    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    sample_rows: int = option(8_000, "records that stand for the pool above that", low=100, high=20_000)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        uncertainty = self._uncertainty(pool)
        free = pool.unlabelled
        if not uncertainty[free].max() > 0:
            uncertainty = np.ones(len(pool))
        rows, weights = free, uncertainty[free]
        if len(pool) > self.exact_below:
            rows, weights = priority_sample(free, weights, max(self.sample_rows, 4 * count), rng)
        chosen = max(count, min(max(JOINT_LENGTH, JOINT_BATCHES * count), len(rows) // 2))
        picks, gains, left = cover(
            self._view(pool),
            rows,
            uncertainty[rows],
            weights,
            np.flatnonzero(pool.labelled),
            gaussian(self.kernel_width),
            chosen,
        )
        # Outside the sample U alone speaks, on a level below every record in it.
        utilities = uncertainty / uncertainty.max() - 2.0
        # A trace of U orders records that have nothing left to cover.
        utilities[rows] = left + 1e-9 * uncertainty[rows]
        _line_up(utilities, rows, picks, gains)
        return picks[:count], utilities, {"gain": gains[:count]}

    def _uncertainty(self, pool: Pool) -> np.ndarray:
        probabilities = pool.require_probabilities()
        uncertainty = mean_margin(probabilities, multi_label=pool.multi_label)
        if pool.multi_label or not self.rarity:
            return uncertainty
        return uncertainty * rarity(probabilities, pool.labels[pool.labelled], self.rarity)

    def _view(self, pool: Pool) -> View:
        view = CentredView.of(pool.features)
        if pool.multi_label or not self.prediction_weight:
            return view
        return PredictedView(view, pool.require_probabilities(), self.prediction_weight)


def _line_up(utilities: np.ndarray, rows: np.ndarray, picks: np.ndarray, gains: np.ndarray) -> None:
    """Give the picks their gains as utilities, in place: falling in the order of the picks, above the other rows."""
    waiting = np.setdiff1d(rows, picks, assume_unique=True)
    above = float(utilities[waiting].max()) if len(waiting) else 0.0
    # Gains fall but for ties and rounding, of which the order must not depend.
    falling = np.maximum.accumulate(np.maximum(gains, above)[::-1])[::-1]
    utilities[picks] = falling + 1e-6 * np.arange(len(picks), 0, -1) / len(picks)
