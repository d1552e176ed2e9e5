"""The match kernel of fused pairs, one column at a time, and how dense a batch is: an n x n table never exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backend.strategies.kernels.gaussian_match import Gaussians

# Columns are computed in blocks that stay in the processor's cache.
BLOCK = 8192
# Logarithms are taken of products of this many factors: fewer logarithms, and no overflow.
FACTORS = 4


class Kernel(Protocol):
    """A symmetric kernel over n records with ones on the diagonal."""

    def __len__(self) -> int: ...

    def column(self, row: int) -> np.ndarray:
        """Similarity of every record to this one, (n,)."""
        ...

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Similarity of every record to each of these, (r, n)."""
        ...

    def at(self, rows: np.ndarray) -> Kernel:
        """The kernel of some records."""
        ...


@dataclass(frozen=True)
class TableKernel:
    """A kernel that is at hand as a table (n, n)."""

    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def column(self, row: int) -> np.ndarray:
        """As ``Kernel.column``."""
        return np.asarray(self.table[:, row])

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """As ``Kernel.columns``."""
        return np.asarray(self.table[:, rows].T)

    def at(self, rows: np.ndarray) -> TableKernel:
        """As ``Kernel.at``."""
        return TableKernel(self.table[np.ix_(rows, rows)])


@dataclass(frozen=True)
class MatchKernel:
    """P_ij = match probability of the i-th and j-th Gaussian, in [0, 1], symmetric, 1 on the diagonal, positive
    semidefinite; 0 only where exp underflows.

    means, halves: (d, n), coordinates first so that a column is d passes over contiguous numbers; halves: half the
    variances. logs: (n,) 1/4 sum ln Sigma. Memory 2 d n numbers. A column costs O(n d).
    Source: ascmr.md section 2.6.
    """

    means: np.ndarray
    halves: np.ndarray
    logs: np.ndarray

    @classmethod
    def of(cls, gaussians: Gaussians) -> MatchKernel:
        """Kernel of Gaussians with positive variances; widen them for a temper (``Gaussians.widened``)."""
        half = gaussians.variance.dtype.type(0.5)
        logs = 0.25 * np.log(gaussians.variance).sum(axis=1)
        return cls(np.ascontiguousarray(gaussians.mean.T), np.ascontiguousarray(gaussians.variance.T * half), logs)

    def __len__(self) -> int:
        return len(self.logs)

    def at(self, rows: np.ndarray) -> MatchKernel:
        """As ``Kernel.at``."""
        return MatchKernel(self.means[:, rows], self.halves[:, rows], self.logs[rows])

    def column(self, row: int) -> np.ndarray:
        """As ``Kernel.column``."""
        mean, half, log = self.means[:, row], self.halves[:, row], self.logs[row]
        out = np.empty_like(self.logs)
        for begin in range(0, len(out), BLOCK):
            part = slice(begin, begin + BLOCK)
            out[part] = _matches(self.means[:, part], self.halves[:, part], self.logs[part] + log, mean, half)
        out[row] = 1.0
        return out

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """As ``Kernel.columns``."""
        out = np.empty((len(rows), len(self)), dtype=self.logs.dtype)
        for place, row in enumerate(rows):
            out[place] = self.column(int(row))
        return out


def _matches(
    means: np.ndarray, halves: np.ndarray, logs: np.ndarray, mean: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """exp of the log match of a block (d, m) with one Gaussian; logs: (m,) sums of both logarithmic terms."""
    apart = np.zeros_like(logs)
    spread = np.zeros_like(logs)
    product = np.ones_like(logs)
    work, middle = np.empty_like(logs), np.empty_like(logs)
    for k in range(len(means)):
        np.add(halves[k], half[k], out=middle)
        np.subtract(means[k], mean[k], out=work)
        np.multiply(work, work, out=work)
        np.divide(work, middle, out=work)
        np.add(apart, work, out=apart)
        np.multiply(product, middle, out=product)
        if k % FACTORS == FACTORS - 1:
            np.add(spread, np.log(product, out=product), out=spread)
            product[:] = 1.0
    np.add(spread, np.log(product, out=product), out=spread)
    spread *= -0.5
    apart *= 0.125
    spread -= apart
    spread += logs
    np.minimum(spread, 0.0, out=spread)
    return np.exp(spread, out=spread)


def mean_similarity(kernel: Kernel, rows: np.ndarray) -> float:
    """A_S: mean of P_ij over ordered pairs of different members of S, 0 for one member (section 2.6); O(b^2)."""
    size = len(rows)
    if size < 2:
        return 0.0
    among = kernel.at(rows)
    total = sum(float(among.column(place).sum(dtype=np.float64)) for place in range(size))
    return (total - size) / (size * (size - 1))


def reference_density(kernel: Kernel, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean of P_ij over the references j other than i, (r,): with random references unbiased for the mean over all,
    standard deviation at most 1 / (2 sqrt(references)). O(r x references) similarities."""
    both = kernel.at(np.concatenate([rows, references]))
    total = np.zeros(len(rows))
    for place in range(len(rows), len(both)):
        total += both.column(place)[: len(rows)]
    same = np.isin(rows, references)
    return np.asarray((total - same) / np.maximum(len(references) - same, 1))
