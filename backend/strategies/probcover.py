"""ProbCover: balls of one radius that cover as much of the pool as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.coverage import ball, cover
from backend.strategies.kernels.kmeans import kmeans
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.kernels.views import View, squared_euclidean, view_of
from backend.strategies.pool import Pool

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ProbCover(Strategy):
    """Picks k times the record whose ball of radius delta holds the most records that no ball holds yet.

    Balls of labelled records count. delta is the largest radius at which a share ``purity`` of the balls is pure:
    holds no record of another cluster, the clusters being as many as there are classes (k-means). So it is the
    (1 - purity) quantile of the distances to the nearest record of another cluster. Once everything is covered, or
    among balls that hold equally many, at random. Needs no prediction.

    Ours: the centred view (the paper: unit vectors of a self-supervised encoder); delta anew in each round instead
    of once a project; above ``exact_below`` records both delta and the choice look at one uniform sample of
    ``sample_rows``, in which neighbours are farther than in the pool.

    Source: Yehuda et al., Active Learning Through a Covering Lens, NeurIPS 2022, algorithm 1 and section 3.4.
    """

    name: ClassVar[str] = "probcover"
    title: ClassVar[str] = "ProbCover"
    paper: ClassVar[str] = "Yehuda et al., NeurIPS 2022, arXiv 2205.11320"
    complexity: ClassVar[str] = "O(n D + r^2 D) time, O(n + r^2) memory, r = min(n, sample_rows)"
    reason: ClassVar[str] = "typical"

    purity: float = option(0.95, "share of the balls that must be pure", low=0.0, high=1.0)
    exact_below: int = option(10_000, "largest pool treated without sampling", low=0, high=20_000)
    sample_rows: int = option(8_000, "records that stand for the pool above that", low=100, high=20_000)
    view: str = option("centred", "vectors centred as in auto, or as they are", choices=("centred", "unit"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        most = len(pool) if len(pool) <= self.exact_below else max(self.sample_rows, 4 * count)
        view = view_of(pool.features, self.view)
        rows, weights = uniform_sample(pool.unlabelled, most, rng)
        radius = pure_radius(view, rows, max(pool.n_classes, 2), self.purity, rng)
        # In random order, because the greedy rule breaks ties by position and counts tie all the time.
        order = rng.permutation(len(rows))
        picks, gains, left = cover(
            view,
            rows[order],
            np.ones(len(rows)),
            weights,
            np.flatnonzero(pool.labelled),
            ball(radius),
            count,
        )
        utilities = rng.random(len(pool)) - 2.0
        # Less than one record apart: equal counts in random order.
        utilities[rows[order]] = left + 1e-9 * rng.random(len(rows))
        return picks, utilities, {"gain": gains}


def pure_radius(view: View, rows: np.ndarray, clusters: int, purity: float, rng: np.random.Generator) -> float:
    """Radius up to which a share ``purity`` of the balls around the rows holds no row of another cluster."""
    vectors = view.rows(rows)
    member = kmeans(vectors, min(clusters, len(rows)), rng).assignment
    if len(np.unique(member)) < 2:
        return float(np.sqrt(squared_euclidean(vectors, vectors[:1]).max()))
    nearest = np.empty(len(rows))
    for begin in range(0, len(rows), BLOCK_ROWS):
        part = slice(begin, begin + BLOCK_ROWS)
        squared = squared_euclidean(vectors[part], vectors)
        squared[member[part, None] == member[None, :]] = np.inf
        nearest[part] = squared.min(axis=1)
    impure = min(int((1.0 - purity) * len(rows) + 1e-9), len(rows) - 1)
    return float(np.sqrt(np.partition(nearest, impure)[impure]))
