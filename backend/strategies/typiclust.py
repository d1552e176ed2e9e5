"""TypiClust: the most typical record of each cluster that has no label yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy, option
from backend.strategies.kernels.kmeans import cluster_rows
from backend.strategies.kernels.typicality import TypicalMembers
from backend.strategies.kernels.views import view_of
from backend.strategies.pool import Pool

# Pairs whose distances may be computed for typicality in all; members of a cluster are sampled above its share.
PAIRS = 1.5e8
FEWEST_MEMBERS = 500


@dataclass(frozen=True)
class TypiClust(Strategy):
    """min(labels + k, max_clusters) clusters of all records; the typical record of those with the fewest labels.

    Clusters with the fewest labelled records come first, larger before smaller, those of ``smallest_cluster`` records
    or fewer last (the authors leave them out); one pick from each, then again from the first. Typicality is 1 over
    the mean distance to the ``neighbours`` nearest of the cluster's records that are neither labelled nor picked, or
    to half of them in small clusters. Needs no prediction.

    Ours: the centred view (the paper: unit vectors of a self-supervised encoder); centroids of a uniform sample
    above ``sample_rows`` records; in large clusters a uniform sample of members stands for them.

    Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
    ICML 2022, section 3 and the authors' code.
    """

    name: ClassVar[str] = "typiclust"
    title: ClassVar[str] = "TypiClust"
    paper: ClassVar[str] = "Hacohen et al., ICML 2022, arXiv 2202.02794"
    complexity: ClassVar[str] = "O((rounds s + n) c D + pairs D) time, c clusters, pairs <= 1.5e8; O(n + s D) memory"
    reason: ClassVar[str] = "typical"

    max_clusters: int = option(500, "clusters at most, as the authors have it", low=1, high=10_000)
    neighbours: int = option(20, "nearest neighbours that typicality looks at", low=1, high=1000)
    smallest_cluster: int = option(5, "clusters of this many records or fewer come last", low=0)
    rounds: int = option(20, "Lloyd rounds at most", low=1, high=1000)
    sample_rows: int = option(20_000, "cluster a uniform sample of this size when the pool is larger", low=100)
    view: str = option("centred", "vectors centred as in auto, or as they are", choices=("centred", "unit"))

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        view = view_of(pool.features, self.view)
        every = np.arange(len(pool))
        number = min(int(pool.labelled.sum()) + count, self.max_clusters, len(pool))
        clusters = cluster_rows(view, every, number, rng, rounds=self.rounds, sample_rows=self.sample_rows)
        sizes = np.bincount(clusters.assignment, minlength=number)
        known = np.bincount(clusters.assignment[pool.labelled], minlength=number)
        order = np.lexsort((-sizes, known, sizes <= self.smallest_cluster))
        order = order[sizes[order] > known[order]]
        # Members of each cluster that may be picked, without a pass over the pool for each.
        free = pool.unlabelled[np.argsort(clusters.assignment[pool.labelled == 0], kind="stable")]
        bounds = np.searchsorted(clusters.assignment[free], np.arange(number + 1))
        most = max(FEWEST_MEMBERS, int(np.sqrt(PAIRS / min(count, len(order)))))
        utilities = -1.0 - np.sqrt(clusters.squared)
        groups: dict[int, TypicalMembers] = {}
        picks: list[int] = []
        typicality: list[float] = []
        large = int((sizes[order] > self.smallest_cluster).sum()) or len(order)
        queue = order[:large].tolist()
        rest = order[large:].tolist()
        while len(picks) < count:
            if not queue:
                queue, rest = rest, []
            again = []
            for cluster in queue:
                if cluster not in groups:
                    members = np.sort(free[bounds[cluster] : bounds[cluster + 1]])
                    groups[cluster] = TypicalMembers(view, members, self.neighbours, most, rng)
                if groups[cluster].left():
                    row, value = groups[cluster].take()
                    picks.append(row)
                    typicality.append(value)
                    again.append(cluster)
                if len(picks) == count:
                    break
            queue = again
        for group in groups.values():
            rows, values = group.remaining()
            # In (0, 1): typical first among the clusters that were visited, before all others.
            utilities[rows] = values / (1.0 + values)
        return np.array(picks, dtype=np.int64), utilities, {"typicality": np.array(typicality)}
