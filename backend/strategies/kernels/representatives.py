"""One central record for each of k groups of candidates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backend.strategies.kernels.kmeans import kmeans, nearest_to_centroids

Vectors = Callable[[np.ndarray], np.ndarray]


def representatives(
    candidates: np.ndarray,
    others: np.ndarray,
    count: int,
    vectors: Vectors,
    rng: np.random.Generator,
    *,
    sample_rows: int,
) -> np.ndarray:
    """``count`` distinct rows: k-means with k = count on the candidates and the row nearest each centroid.

    vectors(rows) gives their (b, D) float32 vectors. With fewer candidates than ``count`` all of them, then uniform
    draws from ``others``. With more than max(sample_rows, 4 count) candidates a uniform sample of that many stands
    for them. Source: the second stage of DropQuery (Gupte et al., TMLR 2024) and ALFA-Mix (Parvaneh et al., CVPR
    2022); sampling is ours.
    """
    if len(candidates) <= count:
        return np.concatenate([rng.permutation(candidates), rng.permutation(others)[: count - len(candidates)]])
    most = max(sample_rows, 4 * count)
    if len(candidates) > most:
        candidates = np.sort(rng.choice(candidates, most, replace=False))
    matrix = vectors(candidates)
    return candidates[nearest_to_centroids(matrix, kmeans(matrix, count, rng))]


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.asarray(rows / np.where(length > 0, length, 1.0)[:, None])
