"""Greedy coverage of a pool by balls or kernels, on all of its records or on a sample that stands for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backend.strategies.kernels.herding import TINY, greedy_coverage
from backend.strategies.kernels.views import View, squared_euclidean

BLOCK_ROWS = 1024
ANCHOR_ROWS = 8192
# From squared distances, in place, to how far one record stands for the other: 1 at distance 0, falling to 0.
Likeness = Callable[[np.ndarray], np.ndarray]


def gaussian(width: float) -> Likeness:
    """exp(-d2 / width)."""

    def likeness(squared: np.ndarray) -> np.ndarray:
        squared *= -1.0 / width
        return np.exp(squared, out=squared)

    return likeness


def ball(radius: float) -> Likeness:
    """1 nearer than the radius, 0 elsewhere; records that coincide but for rounding are always near."""
    # What is at the radius itself, up to rounding, is outside: pure_radius gives the distance to what must stay out.
    level = max(radius * radius * (1.0 - 1e-5), 1e-6)

    def likeness(squared: np.ndarray) -> np.ndarray:
        return np.less(squared, level, out=squared)

    return likeness


def cover(
    view: View,
    rows: np.ndarray,
    uncertainty: np.ndarray,
    weights: np.ndarray,
    anchors: np.ndarray,
    likeness: Likeness,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``greedy_coverage`` among ``rows``, those near ``anchors`` being covered already.

    uncertainty, weights: (rows,) as there. Returns picks (rows of the view), the gain of each as a part of the first,
    and (rows,) the gains left, in the same unit. Memory: rows^2 float32, the vectors of the rows and chunks.
    """
    vectors = view.rows(rows)
    kernel = likeness_matrix(vectors, likeness)
    covered = likeness(nearest_squared(view, vectors, anchors)) if len(anchors) else np.zeros(len(rows))
    found = greedy_coverage(kernel, uncertainty, weights, covered, count)
    first = max(float(found.gains[0]), TINY)
    return rows[found.picks], found.gains / first, found.remaining / first


def likeness_matrix(vectors: np.ndarray, likeness: Likeness) -> np.ndarray:
    """Likeness of the vectors among themselves, float32 (r, r), exactly symmetric, 1 on the diagonal."""
    out = np.empty((len(vectors), len(vectors)), dtype=np.float32)
    for begin in range(0, len(vectors), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(vectors))
        out[begin:end, begin:] = likeness(squared_euclidean(vectors[begin:end], vectors[begin:]))
        out[end:, begin:end] = out[begin:end, end:].T
        # The corner was computed both ways and may differ in its last digit.
        corner = out[begin:end, begin:end]
        np.maximum(corner, corner.T.copy(), out=corner)
    np.fill_diagonal(out, 1.0)
    return out


def nearest_squared(view: View, vectors: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Squared distance of each vector to the nearest of the anchor rows, at least one, (b,) float32; chunked."""
    out = np.full(len(vectors), np.inf, dtype=np.float32)
    for first in range(0, len(anchors), ANCHOR_ROWS):
        right = view.rows(anchors[first : first + ANCHOR_ROWS])
        for begin in range(0, len(vectors), BLOCK_ROWS):
            part = slice(begin, begin + BLOCK_ROWS)
            np.minimum(out[part], squared_euclidean(vectors[part], right).min(axis=1), out=out[part])
    return out
