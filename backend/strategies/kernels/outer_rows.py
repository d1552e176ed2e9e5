"""Rows g_i = r_i (x) u_i kept as their two factors: an n x C x D array never exists.

<g_i, g_j> = (r_i . r_j)(u_i . u_j), so a distance costs C + D multiplications and memory stays O(n (C + D)), or
less where the factors are views of what is on disk. Source: bmmal.md section 6; Zhang et al., arXiv 2306.09910, D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backend.half_precision import widen

Rows = slice | np.ndarray
CHUNK_ROWS = 8192
# Where d^2 is this small beside the norms, the product form has lost its digits and the difference form is used.
CANCELLATION = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}


class OuterRows(Protocol):
    """n rows in factored form; ``offset`` is added to every squared distance (see ``squared_distances``)."""

    @property
    def offset(self) -> float: ...

    def __len__(self) -> int: ...

    def factors(self, rows: Rows, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """(left (b, C), right (b, D)) of some rows."""
        ...


@dataclass(frozen=True)
class GradientRows:
    """Last-layer gradient of the cross-entropy at the pseudo-label: r = p - onehot, u = [w_1 z_1 | ... | w_M z_M].

    weights: (n, M) in the order of ``features``, or None for 1 everywhere (then it is BADGE).
    Multi-label: r = q - [q >= 1/2], the gradient of the summed binary cross-entropies; compat: twice that for the
    positive ones, as the BMMAL authors' code (bmmal.md section 2.5).
    offset: 1e-12 C D, from the 1e-6 that torch's PairwiseDistance adds to every coordinate; it makes exhausted
    pools draw uniformly instead of dividing by zero.
    """

    probabilities: np.ndarray
    features: Mapping[str, np.ndarray]
    weights: np.ndarray | None = None
    multi_label: bool = False
    compat: bool = False

    @property
    def offset(self) -> float:
        """Constant added to squared distances."""
        return 1e-12 * self.probabilities.shape[1] * sum(z.shape[1] for z in self.features.values())

    def __len__(self) -> int:
        return len(self.probabilities)

    def factors(self, rows: Rows, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """(residuals (b, C), modulated features (b, D))."""
        left = residuals(self.probabilities[rows], multi_label=self.multi_label, dtype=dtype, compat=self.compat)
        right = np.empty((len(left), sum(matrix.shape[1] for matrix in self.features.values())), dtype=dtype)
        share = None if self.weights is None else np.asarray(self.weights[rows], dtype=dtype)
        begin = 0
        for m, matrix in enumerate(self.features.values()):
            block = right[:, begin : begin + matrix.shape[1]]
            widen(matrix[rows], block)
            if share is not None:
                block *= share[:, [m]]
            begin += matrix.shape[1]
        return left, right


@dataclass(frozen=True)
class PlainRows:
    """Ordinary vectors, as outer rows with the left factor 1."""

    matrix: np.ndarray
    offset: float = 0.0

    def __len__(self) -> int:
        return len(self.matrix)

    def factors(self, rows: Rows, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """(ones (b, 1), the vectors (b, D))."""
        right = np.asarray(self.matrix[rows], dtype=dtype)
        return np.ones((len(right), 1), dtype=dtype), right


@dataclass(frozen=True)
class Centres:
    """Chosen rows, kept with their factors so that distances to them need no look-up. float64."""

    left: np.ndarray
    right: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(cls, rows: OuterRows, indices: Sequence[int] | np.ndarray) -> Centres:
        """The rows at these indices."""
        left, right = rows.factors(np.asarray(indices, dtype=np.int64), np.dtype(np.float64))
        return cls(left, right, _norms(left, right))

    def __len__(self) -> int:
        return len(self.norms)

    def joined(self, other: Centres) -> Centres:
        """Both sets, this one first."""
        return Centres(
            np.concatenate([self.left, other.left]),
            np.concatenate([self.right, other.right]),
            np.concatenate([self.norms, other.norms]),
        )

    def at(self, positions: Sequence[int] | np.ndarray) -> Centres:
        """A part of the set."""
        return Centres(self.left[positions], self.right[positions], self.norms[positions])


def residuals(probabilities: np.ndarray, *, multi_label: bool, dtype: np.dtype, compat: bool = False) -> np.ndarray:
    """p - onehot(argmax p), or q - [q >= 1/2] for multi-label, where compat doubles the positive ones; (b, C)."""
    left = np.array(probabilities, dtype=dtype)
    if multi_label:
        positive = left >= 0.5
        left -= positive
        if compat:
            left[positive] *= 2.0
    else:
        left[np.arange(len(left)), left.argmax(axis=1)] -= 1.0
    return left


def _norms(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.asarray(
        np.einsum("ij,ij->i", left, left, dtype=np.float64) * np.einsum("ij,ij->i", right, right, dtype=np.float64)
    )


def chunks(n: int) -> Iterator[slice]:
    """Consecutive slices of at most CHUNK_ROWS rows."""
    for begin in range(0, n, CHUNK_ROWS):
        yield slice(begin, min(begin + CHUNK_ROWS, n))


def squared_norms(rows: OuterRows, dtype: np.dtype) -> np.ndarray:
    """|g_i|^2 = |r_i|^2 |u_i|^2, (n,) float64, in one pass; factors in ``dtype``, sums in float64."""
    out = np.empty(len(rows))
    for part in chunks(len(rows)):
        out[part] = _norms(*rows.factors(part, dtype))
    return out


def squared_distances(
    left: np.ndarray, right: np.ndarray, norms: np.ndarray, centres: Centres, offset: float
) -> np.ndarray:
    """d^2 of b rows to c centres plus ``offset``, (b, c) float64, exact zero (+ offset) for exact duplicates.

    The products run in the dtype of ``left``; where they cancel, the pair is computed again from differences.
    """
    dtype = left.dtype
    product = (left @ centres.left.T.astype(dtype)).astype(np.float64)
    product *= right @ centres.right.T.astype(dtype)
    scale = norms[:, None] + centres.norms[None, :]
    squared = scale - 2.0 * product
    row, column = np.nonzero(squared < CANCELLATION[dtype] * scale)
    for begin in range(0, len(row), CHUNK_ROWS):
        i, j = row[begin : begin + CHUNK_ROWS], column[begin : begin + CHUNK_ROWS]
        squared[i, j] = _difference_form(left[i], right[i], centres.left[j], centres.right[j])
    return np.maximum(squared, 0.0, out=squared) + offset


def _difference_form(left: np.ndarray, right: np.ndarray, left_c: np.ndarray, right_c: np.ndarray) -> np.ndarray:
    left, right = left.astype(np.float64, copy=False), right.astype(np.float64, copy=False)
    d_left, d_right = left - left_c, right - right_c
    return (
        np.einsum("ij,ij->i", d_left, d_left) * np.einsum("ij,ij->i", right, right)
        + np.einsum("ij,ij->i", left_c, left_c) * np.einsum("ij,ij->i", d_right, d_right)
        + 2.0 * np.einsum("ij,ij->i", d_left, left_c) * np.einsum("ij,ij->i", right, d_right)
    )


def lower_to(rows: OuterRows, norms: np.ndarray, weights: np.ndarray, centres: Centres, dtype: np.dtype) -> None:
    """weights <- min(weights, squared distance to the nearest centre), in place, one pass over the rows."""
    if not len(centres):
        return
    for part in chunks(len(rows)):
        live = np.flatnonzero(weights[part] > 0)
        if not len(live):
            continue
        left, right = rows.factors(part, dtype)
        if len(live) < 0.5 * len(left):
            left, right = left[live], right[live]
            picked = live + part.start
        else:
            picked = np.arange(part.start, part.stop)
        nearest = squared_distances(left, right, norms[picked], centres, rows.offset).min(axis=1)
        weights[picked] = np.minimum(weights[picked], nearest)
