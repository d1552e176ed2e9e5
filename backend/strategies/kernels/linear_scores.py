"""Logits of a linear head over the concatenated modalities (``views.UnitView``), and distances to its boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

CHUNK_ROWS = 8192


def row_chunks(n: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` of n rows."""
    for begin in range(0, n, size):
        yield slice(begin, min(begin + size, n))


@dataclass(frozen=True)
class LinearScores:
    """logits = [x_1 | ... | x_M] @ weights.T + bias; weights (K, sum D), bias (K,) float64, for K scored classes."""

    weights: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(
        cls, fused: Mapping[str, np.ndarray], bias: np.ndarray, seen: np.ndarray, *, multi_label: bool
    ) -> LinearScores:
        """Scores of a head; single-label: the classes seen so far only, the others can never be predicted."""
        kept = np.ones(len(seen), dtype=bool) if multi_label else np.asarray(seen, dtype=bool)
        joint = np.concatenate([np.asarray(fused[name], dtype=np.float64) for name in sorted(fused)], axis=1)
        return cls(joint[kept], np.asarray(bias, dtype=np.float64)[kept])

    def logits(self, joined: np.ndarray) -> np.ndarray:
        """(b, K) in the dtype of the rows."""
        return joined @ self.weights.T.astype(joined.dtype) + self.bias.astype(joined.dtype)


def softmax_rows(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in the dtype given."""
    out = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out /= out.sum(axis=-1, keepdims=True)
    return out


def boundary_distances(
    logits: np.ndarray, gaps: np.ndarray, *, multi_label: bool, ranks: int = 10, compat: bool = False
) -> np.ndarray:
    """Squared distance (n,) float64 of each row to the nearest decision boundary of a linear head; inf without one.

    gaps: ``weight_gaps(weights)``, (K, K) squared distances between the classes' weights, or (K,) squared lengths
    for multi-label, where the boundaries are those of K separate yes-no questions (our extension).
    Single-label: min over the classes j of rank 2 to min(ranks, K) of (l_j - l_top)^2 / |W_j - W_top|^2.
    compat: only the class of the last of these ranks, as the BMMAL authors' code does, which never updates its best.
    Source: Moosavi-Dezfooli et al., CVPR 2016, for a linear classifier; bmmal.md section 3.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if multi_label:
        return np.asarray(_ratio(logits**2, np.broadcast_to(gaps, logits.shape)).min(axis=1))
    considered = min(ranks, logits.shape[1])
    if considered < 2:
        return np.full(len(logits), np.inf)
    order = _top(logits, considered)
    top, rivals = order[:, :1], order[:, -1:] if compat else order[:, 1:]
    difference = np.take_along_axis(logits, rivals, axis=1) - np.take_along_axis(logits, top, axis=1)
    return np.asarray(_ratio(difference**2, gaps[top, rivals]).min(axis=1))


def weight_gaps(weights: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Squared lengths of the normals of the boundaries: |W_j - W_k|^2 (K, K), or |W_k|^2 (K,) for multi-label."""
    if multi_label:
        return np.asarray(np.einsum("ij,ij->i", weights, weights))
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(weights, weights, "sqeuclidean"))


def _top(logits: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` classes of the largest logits, largest first, lowest index on ties."""
    if count < logits.shape[1]:
        kept = np.sort(np.argpartition(-logits, count - 1, axis=1)[:, :count], axis=1)
    else:
        kept = np.broadcast_to(np.arange(count), logits.shape)
    order = np.argsort(-np.take_along_axis(logits, kept, axis=1), axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)


def _ratio(gap: np.ndarray, length: np.ndarray) -> np.ndarray:
    """gap / length; where the boundary has no direction: 0 for a row on it, infinity for any other."""
    flat = length <= 0
    return np.where(flat, np.where(gap > 0, np.inf, 0.0), gap / np.where(flat, 1.0, length))
