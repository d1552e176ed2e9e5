"""Exact nearest neighbours by chunked matrix products."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.views import View, squared_euclidean

QUERY_ROWS = 16_384
BLOCK_ROWS = 1024
BASE_ROWS = 8192


def nearest_neighbours(view: View, queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of ``base`` nearest each row of ``queries``, itself left out: (rows (q, k), squared (q, k)).

    Nearest first, lowest row on ties. queries, base: row numbers of the view, base ascending; k is cut to what there
    is. Exact up to float32 products; O(q b D) time, memory of 16,384 queries and chunks: neither n x n nor all rows
    at once, so the features may stay on disk.
    """
    k = min(k, len(base) - int(np.isin(queries, base).any()))
    rows = np.empty((len(queries), k), dtype=np.int64)
    squared = np.empty((len(queries), k), dtype=np.float32)
    for begin in range(0, len(queries), QUERY_ROWS):
        part = slice(begin, begin + QUERY_ROWS)
        rows[part], squared[part] = _nearest_of_some(view, queries[part], base, k)
    return rows, squared


def _nearest_of_some(view: View, queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    vectors = view.rows(queries)
    rows = np.full((len(queries), k), np.iinfo(np.int64).max)
    squared = np.full((len(queries), k), np.inf, dtype=np.float32)
    for first in range(0, len(base), BASE_ROWS):
        among = base[first : first + BASE_ROWS]
        right = view.rows(among)
        for begin in range(0, len(queries), BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            distance = squared_euclidean(vectors[part], right)
            own = np.searchsorted(among, queries[part])
            own = np.where(own < len(among), own, 0)
            itself = np.flatnonzero(among[own] == queries[part])
            distance[itself, own[itself]] = np.inf
            rows[part], squared[part] = _merged(rows[part], squared[part], among, distance, k)
    return rows, squared


def _merged(
    rows: np.ndarray, squared: np.ndarray, among: np.ndarray, distance: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of those found so far and of a further chunk."""
    if distance.shape[1] > k:
        kept = np.argpartition(distance, k - 1, axis=1)[:, :k] if k else np.empty((len(distance), 0), dtype=np.int64)
        # argpartition breaks ties as it likes: take the lowest rows of those at the k-th distance.
        level = np.take_along_axis(distance, kept, axis=1).max(axis=1, initial=-np.inf, keepdims=True)
        for i in np.flatnonzero((distance <= level).sum(axis=1) > k):
            kept[i] = np.argsort(distance[i], kind="stable")[:k]
    else:
        kept = np.broadcast_to(np.arange(distance.shape[1]), distance.shape)
    all_rows = np.concatenate([rows, among[kept]], axis=1)
    all_squared = np.concatenate([squared, np.take_along_axis(distance, kept, axis=1)], axis=1)
    order = np.lexsort((all_rows, all_squared), axis=1)[:, :k]
    return np.take_along_axis(all_rows, order, axis=1), np.take_along_axis(all_squared, order, axis=1)
