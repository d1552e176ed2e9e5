"""Lloyd's k-means with k-means++ seeding (Arthur and Vassilvitskii, SODA 2007)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from backend.strategies.kernels.kmeanspp import rejection_seeding
from backend.strategies.kernels.outer_rows import PlainRows, chunks
from backend.strategies.kernels.views import View, squared_euclidean


@dataclass(frozen=True)
class Clusters:
    """centroids: (k, D); assignment: (n,) nearest centroid; squared: (n,) squared distance to it."""

    centroids: np.ndarray
    assignment: np.ndarray
    squared: np.ndarray


def kmeans(matrix: np.ndarray, k: int, rng: np.random.Generator, *, rounds: int = 20) -> Clusters:
    """At most ``rounds`` Lloyd rounds on (n, D) float32; a cluster that empties keeps its centroid. k <= n."""
    seeds = rejection_seeding(PlainRows(matrix), k, rng, first=int(rng.integers(len(matrix)))).picks
    lengths = np.einsum("ij,ij->i", matrix, matrix)
    clusters = _assign(matrix, matrix[seeds], lengths)
    n = len(matrix)
    for _ in range(rounds):
        member = csr_array((np.ones(n, np.float32), (clusters.assignment, np.arange(n))), shape=(k, n))
        sums = member @ matrix
        sizes = np.bincount(clusters.assignment, minlength=k)
        alive = sizes > 0
        centroids = clusters.centroids.copy()
        centroids[alive] = sums[alive] / sizes[alive, None]
        moved = _assign(matrix, centroids, lengths)
        settled = np.array_equal(moved.assignment, clusters.assignment)
        clusters = moved
        if settled:
            break
    return clusters


def cluster_rows(
    view: View, rows: np.ndarray, k: int, rng: np.random.Generator, *, rounds: int, sample_rows: int
) -> Clusters:
    """``kmeans`` of some rows of a view; assignment and squared are aligned with ``rows``.

    With more than max(sample_rows, 4 k) rows the centroids are those of a uniform sample and every row is assigned
    to them in one pass: O((rounds s + n) k D), memory of the sample. Sampling is ours.
    """
    most = max(sample_rows, 4 * k)
    if len(rows) <= most:
        return kmeans(view.rows(rows), k, rng, rounds=rounds)
    sample = np.sort(rng.choice(rows, most, replace=False))
    centroids = kmeans(view.rows(sample), k, rng, rounds=rounds).centroids
    assignment = np.empty(len(rows), dtype=np.int64)
    squared = np.empty(len(rows))
    for part in chunks(len(rows)):
        block = view.rows(rows[part])
        found = _assign(block, centroids, np.einsum("ij,ij->i", block, block))
        assignment[part], squared[part] = found.assignment, found.squared
    return Clusters(centroids, assignment, squared)


def rank_in_cluster(assignment: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """0 for the row nearest its centroid, 1 for the next one of the same cluster, and so on; (n,) int64."""
    order = np.lexsort((squared, assignment))
    starts = np.searchsorted(assignment[order], assignment[order], side="left")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank


def _assign(matrix: np.ndarray, centroids: np.ndarray, lengths: np.ndarray) -> Clusters:
    """lengths: (n,) squared norms of the rows."""
    assignment = np.empty(len(matrix), dtype=np.int64)
    squared = np.empty(len(matrix))
    doubled = np.ascontiguousarray(2.0 * centroids.T)
    offsets = np.einsum("ij,ij->i", centroids, centroids)
    for part in chunks(len(matrix)):
        partial = offsets - matrix[part] @ doubled
        assignment[part] = partial.argmin(axis=1)
        squared[part] = np.maximum(partial.min(axis=1) + lengths[part], 0.0)
    return Clusters(centroids, assignment, squared)


def nearest_to_centroids(matrix: np.ndarray, clusters: Clusters) -> np.ndarray:
    """One row for each centroid, the nearest that is not taken yet, largest cluster first; distinct, (k,)."""
    sizes = np.bincount(clusters.assignment, minlength=len(clusters.centroids))
    free = np.ones(len(matrix), dtype=bool)
    picks = []
    for cluster in np.argsort(-sizes, kind="stable"):
        distances = squared_euclidean(matrix, clusters.centroids[[cluster]])[:, 0]
        picks.append(int(np.where(free, distances, np.inf).argmin()))
        free[picks[-1]] = False
    return np.array(picks, dtype=np.int64)
