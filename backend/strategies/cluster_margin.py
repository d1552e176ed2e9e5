"""Cluster-Margin: small margins, one from each cluster, small clusters first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.uncertainty import margin
from backend.strategies.kernels.views import View, squared_euclidean, view_of
from backend.strategies.pool import Pool

BLOCK_ROWS = 1024
# Candidates clustered at most: the distances of these among themselves are 400 MB.
MOST_CANDIDATES = 10_000


@dataclass(frozen=True)
class ClusterMargin(LabelledStrategy):
    """The ``candidates`` x k records of smallest margin, spread over clusters round-robin, smallest cluster first.

    Clusters are those of average-linkage hierarchical clustering, cut to ``cluster_size`` records on average; only
    their candidates count towards their size. Each turn takes one candidate of a cluster at random. Multi-label:
    margin of the most undecided label. Reserve: the round-robin goes on, then by margin.

    Ours: clustering in each round instead of once a project, cut by number of clusters instead of by distance; above
    ``cluster_below`` records the candidates alone are clustered, 10,000 at most.

    Source: Citovsky et al., Batch Active Learning at Scale, NeurIPS 2021, algorithm 1.
    """

    name: ClassVar[str] = "cluster_margin"
    title: ClassVar[str] = "Cluster-Margin"
    paper: ClassVar[str] = "Citovsky et al., NeurIPS 2021, arXiv 2107.14263"
    complexity: ClassVar[str] = "O(n C + m^2 D) time, O(n + m^2) memory, m = candidates x k or all records, <= 10,000"

    candidates: int = option(10, "candidates a pick", low=1, high=1000)
    cluster_size: int = option(10, "records of a cluster, on average", low=1, high=1000)
    cluster_below: int = option(4_000, "largest pool that is clustered as a whole", low=0, high=10_000)
    view: str = option("unit", "vectors as they are, or centred as in auto", choices=("unit", "centred"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        scores = margin(pool.require_probabilities(), multi_label=pool.multi_label)
        free = rng.permutation(pool.unlabelled)
        wanted = min(len(free), max(count, min(self.candidates * count, MOST_CANDIDATES)))
        near = np.sort(free[np.argsort(-scores[free], kind="stable")[:wanted]])
        utilities = scores - 2.0
        if wanted == count:
            # Nothing to choose from.
            order = near[np.argsort(-scores[near], kind="stable")]
        else:
            rows = np.arange(len(pool)) if len(pool) <= self.cluster_below else near
            view = view_of(pool.features, self.view)
            member = linkage_clusters(view, rows, -(-len(rows) // self.cluster_size))
            order = round_robin(near, member[np.searchsorted(rows, near)], rng)
        utilities[order] = 1.0 - np.arange(len(order)) / len(order)
        return order[:count], utilities, {"score": scores[order[:count]]}


def linkage_clusters(view: View, rows: np.ndarray, clusters: int) -> np.ndarray:
    """Cluster number of each row, at most ``clusters`` of them: average linkage of Euclidean distances."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(rows)
    vectors = view.rows(rows)
    condensed = np.empty(n * (n - 1) // 2)
    at = 0
    for begin in range(0, n, BLOCK_ROWS):
        block = np.sqrt(squared_euclidean(vectors[begin : begin + BLOCK_ROWS], vectors))
        for i, line in enumerate(block, start=begin):
            condensed[at : at + n - 1 - i] = line[i + 1 :]
            at += n - 1 - i
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    return np.asarray(fcluster(linkage(condensed, "average"), clusters, "maxclust"), dtype=np.int64)


def round_robin(rows: np.ndarray, member: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows in turns: one of each cluster, clusters of few rows first, at random within a cluster."""
    order = rng.permutation(len(rows))
    order = order[np.argsort(member[order], kind="stable")]
    groups, starts, sizes = np.unique(member[order], return_index=True, return_counts=True)
    turn = np.arange(len(rows)) - np.repeat(starts, sizes)
    return rows[order[np.lexsort((np.repeat(groups, sizes), np.repeat(sizes, sizes), turn))]]
