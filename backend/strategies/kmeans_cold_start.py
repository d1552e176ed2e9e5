"""Centroid cold start: the most central record of each k-means cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.kmeans import kmeans, nearest_to_centroids, rank_in_cluster
from backend.strategies.kernels.views import CentredView
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class KMeansColdStart(Strategy):
    """k-means with one cluster a pick on centred unit features; picks the record nearest each centroid.

    Needs no label and no head. Largest cluster first, so that a batch cut short is still the most representative.
    Above ``sample_rows`` unlabelled records the clusters are those of a uniform sample (centring uses all).
    Reserve: second-nearest of each cluster, then third, and so on; records outside the sample come last, in random
    order. Memory: sample_rows x D float32 and chunks.

    Source: centroid initialisation, Gupte et al., Revisiting Active Learning in the Era of Vision Foundation Models
    (DropQuery), TMLR 2024, arXiv 2401.14555; centring: label_efficiency.md, recipe steps 1 and 2.
    """

    name: ClassVar[str] = "kmeans_cold_start"
    title: ClassVar[str] = "Centroid cold start"
    paper: ClassVar[str] = "Gupte et al., TMLR 2024, arXiv 2401.14555 (centroid initialisation)"
    complexity: ClassVar[str] = "O(n D + rounds s k D) time, O(s D) memory, s = min(n, sample_rows)"
    reason: ClassVar[str] = "typical"

    rounds: int = option(20, "Lloyd rounds at most", low=1, high=1000)
    sample_rows: int = option(20_000, "cluster a uniform sample of this size when the pool is larger", low=100)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        free = pool.unlabelled
        wanted = max(self.sample_rows, 4 * count)
        sample = free if len(free) <= wanted else np.sort(rng.choice(free, wanted, replace=False))
        matrix = CentredView.of(pool.features).rows(sample)
        clusters = kmeans(matrix, count, rng, rounds=self.rounds)
        picks = nearest_to_centroids(matrix, clusters)
        sizes = np.bincount(clusters.assignment, minlength=count)
        utilities = -2.0 - len(sample) + rng.random(len(pool))
        utilities[sample] = -rank_in_cluster(clusters.assignment, clusters.squared)
        share = sizes[clusters.assignment[picks]] / len(sample)
        return sample[picks], utilities, {"cluster_share": share}
