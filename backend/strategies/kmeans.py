"""k-means sampling: the record nearest the centre of each of k clusters of what is unlabelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.kmeans import cluster_rows, rank_in_cluster
from backend.strategies.kernels.views import view_of
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class KMeans(Strategy):
    """k clusters of the unlabelled records, k the batch; picks the member nearest each centroid, in every round.

    Largest cluster first. Clusters that end empty give their places to second-nearest members. The vectors are the
    unit vectors of all modalities, concatenated, an absent one a zero vector. Needs no prediction. Reserve:
    second-nearest of each cluster, then third, and so on. Above ``sample_rows`` unlabelled records the centroids
    are those of a uniform sample (ours), and every record is assigned to them.

    Source: the k-means baseline of Shen et al., ACM MM 2023 (bmmal.md section 3), whose code takes the two nearest
    and so leaves half of the clusters out; centroid sampling goes back to Zhdanov, arXiv 1901.05954, 2019.
    """

    name: ClassVar[str] = "kmeans"
    title: ClassVar[str] = "k-means centroids"
    paper: ClassVar[str] = "Zhdanov, 2019, arXiv 1901.05954; baseline of Shen et al., ACM MM 2023"
    complexity: ClassVar[str] = "O((rounds s + n) k D) time, O(n + s D) memory, s = min(n, sample_rows)"
    reason: ClassVar[str] = "typical"

    rounds: int = option(20, "Lloyd rounds at most", low=1, high=1000)
    sample_rows: int = option(20_000, "cluster a uniform sample of this size when the pool is larger", low=100)
    view: str = option("unit", "vectors as they are, or centred as in auto", choices=("unit", "centred"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        free = pool.unlabelled
        view = view_of(pool.features, self.view)
        clusters = cluster_rows(view, free, count, rng, rounds=self.rounds, sample_rows=self.sample_rows)
        sizes = np.bincount(clusters.assignment, minlength=count)
        rank = rank_in_cluster(clusters.assignment, clusters.squared)
        order = np.lexsort((clusters.assignment, -sizes[clusters.assignment], rank))
        utilities = np.zeros(len(pool))
        utilities[free[order]] = -np.arange(len(free), dtype=np.float64)
        picked = order[:count]
        return free[picked], utilities, {"cluster_share": sizes[clusters.assignment[picked]] / len(free)}
