"""Uncertainty herding as published: calibrated margin, radius from the labelled records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.coverage import cover, gaussian
from backend.strategies.kernels.sampling import priority_sample
from backend.strategies.kernels.temperature import held_out_temperature, with_temperature
from backend.strategies.kernels.uncertainty import margin
from backend.strategies.kernels.views import View, squared_euclidean, view_of
from backend.strategies.pool import Pool

# Labelled records whose distances set the radius, evenly spaced where there are more.
LABELLED_ROWS = 4000
# Squared distances below this are copies of one record, which would leave no radius at all.
COPIES = 1e-6


@dataclass(frozen=True)
class UHerding(LabelledStrategy):
    """Picks k times argmax_x of sum_i U_i [k(i, x) - m_i]_+, with temperature and radius set from the labels.

    U = 1 - (p1 - p2) of probabilities softmax(logits / T), T the temperature with the least calibration error on a
    held-out fifth of the labelled records. k = exp(-|i - x|^2 / sigma^2), sigma the least distance between two
    labelled records that are no copies, 1 at most and before there are two. m_i: similarity to the nearest label or
    pick. If nothing is uncertain, U = 1.

    ``auto`` differs by a fixed radius and no temperature. Ours: the centred view (the paper: unit vectors of a
    self-supervised encoder), sigma at most 1, held-out logits from a logistic model of the head's strength, and the
    sampling above ``exact_below`` records, which is that of ``auto``.

    Source: Bae, Oliveira and Sutherland, Uncertainty Herding, ICLR 2025, algorithm 1 and section 4; the rules for T
    and sigma as its public re-implementations have them.
    """

    name: ClassVar[str] = "uherding"
    title: ClassVar[str] = "Uncertainty herding (as published)"
    paper: ClassVar[str] = "Bae et al., ICLR 2025, arXiv 2412.20644"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "single_label"})
    complexity: ClassVar[str] = "O(n (C + D) + r^2 D) time, O(n + r^2) memory, r = min(n, sample_rows)"

    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    sample_rows: int = option(8_000, "records that stand for the pool above that", low=100, high=20_000)
    view: str = option("centred", "vectors centred as in auto, or as they are", choices=("centred", "unit"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        probabilities = pool.require_probabilities()
        known = np.flatnonzero(pool.labelled)
        unit = view_of(pool.features, "unit")
        taught = _evenly(known)
        temperature = held_out_temperature(unit.rows(taught), pool.labels[taught], rng)
        uncertainty = margin(with_temperature(probabilities, temperature), multi_label=False)
        free = pool.unlabelled
        if not uncertainty[free].max() > 0:
            uncertainty = np.ones(len(pool))
        view = view_of(pool.features, self.view)
        radius = labelled_radius(view, known)
        rows, weights = free, uncertainty[free]
        if len(pool) > self.exact_below:
            rows, weights = priority_sample(free, weights, max(self.sample_rows, 4 * count), rng)
        picks, gains, left = cover(view, rows, uncertainty[rows], weights, known, gaussian(radius**2), count)
        # Outside the sample U alone speaks, on a level below every record in it.
        utilities = uncertainty / uncertainty.max() - 2.0
        utilities[rows] = left + 1e-9 * uncertainty[rows]
        parts = {"gain": gains, "temperature": np.full(count, temperature), "radius": np.full(count, radius)}
        return picks, utilities, parts


def labelled_radius(view: View, known: np.ndarray) -> float:
    """Least distance between two labelled rows that are no copies of one another; 1 at most, or with fewer than 2."""
    known = _evenly(known)
    vectors = view.rows(known)
    least = 1.0
    for begin in range(0, len(known), 1024):
        squared = squared_euclidean(vectors[begin : begin + 1024], vectors)
        apart = squared[squared > COPIES]
        least = min(least, float(np.sqrt(apart.min()))) if len(apart) else least
    return least


def _evenly(rows: np.ndarray) -> np.ndarray:
    return rows if len(rows) <= LABELLED_ROWS else rows[np.linspace(0, len(rows) - 1, LABELLED_ROWS).astype(np.int64)]
