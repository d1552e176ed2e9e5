"""Greedy maximisation of uncertainty-weighted coverage (UHerding, Bae et al., ICLR 2025, arXiv 2412.20644)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.strategies.kernels.views import CentredView, squared_euclidean

BLOCK_ROWS = 128
KERNEL_ROWS = 1024
# Gains this close to the best are a tie and the lowest position wins: the pick then does not depend on the last
# digits of a matrix product, which change with the number of BLAS threads.
TIE = 1e-5
# A gain this small beside the first one is rounding: nothing is left to cover.
EXHAUSTED = 1e-6
TINY = 1e-30


@dataclass(frozen=True)
class Coverage:
    """picks: (k,) positions among the candidates; gains: (k,) gain of each when it was picked;
    remaining: (s,) gain of every candidate after the batch."""

    picks: np.ndarray
    gains: np.ndarray
    remaining: np.ndarray


def similarity(view: CentredView, rows: np.ndarray, columns: np.ndarray, width: float) -> np.ndarray:
    """exp(-D2 / width) float32 (rows, columns); memory of the result plus one block."""
    right = view.rows(columns)
    out = np.empty((len(rows), len(columns)), dtype=np.float32)
    for begin in range(0, len(rows), KERNEL_ROWS):
        block = squared_euclidean(view.rows(rows[begin : begin + KERNEL_ROWS]), right)
        block *= -1.0 / width
        np.exp(block, out=out[begin : begin + KERNEL_ROWS])
    return out


def coverage_by(view: CentredView, rows: np.ndarray, anchors: np.ndarray, width: float) -> np.ndarray:
    """m_i = max over anchors of exp(-D2 / width), (rows,) float32; 0 without anchors. Chunked over both."""
    out = np.zeros(len(rows), dtype=np.float32)
    for first in range(0, len(anchors), 8 * KERNEL_ROWS):
        right = view.rows(anchors[first : first + 8 * KERNEL_ROWS])
        for begin in range(0, len(rows), KERNEL_ROWS):
            part = slice(begin, begin + KERNEL_ROWS)
            nearest = squared_euclidean(view.rows(rows[part]), right).min(axis=1)
            out[part] = np.maximum(out[part], np.exp(-nearest / width))
    return out


def greedy_coverage(
    kernel: np.ndarray, weights: np.ndarray, covered: np.ndarray, k: int, fallback: np.ndarray
) -> Coverage:
    """k times: argmax_x of sum_i weights_i [kernel_ix - covered_i]_+, then covered_i <- max(covered_i, kernel_ix).

    kernel: (r, s) float32, reference rows by candidates; weights: (r,) >= 0; covered: (r,) in [0, 1], coverage by
    what is labelled; fallback: (s,) order of the candidates once nothing is left to cover. After a pick only the
    reference rows that it covers better are summed again. k <= s. Time O(r s) and then O(changed rows s) a pick.
    """
    covered = covered.astype(np.float32)
    weights = weights.astype(np.float32)
    gains = np.zeros(kernel.shape[1])
    useful = np.flatnonzero((weights > 0) & (covered < 1))
    _lower(gains, kernel, weights, useful, covered, np.ones_like(covered), sign=1.0)
    floor = EXHAUSTED * max(float(gains.max(initial=0.0)), TINY)
    open_ = np.ones(len(gains), dtype=bool)
    picks: list[int] = []
    at_pick: list[float] = []
    while len(picks) < k:
        best = float(gains[open_].max())
        if best <= floor:
            rest = np.flatnonzero(open_)
            filled = rest[np.argsort(-fallback[rest], kind="stable")][: k - len(picks)]
            picks += filled.tolist()
            at_pick += [0.0] * len(filled)
            break
        pick = int(np.argmax(open_ & (gains >= best * (1.0 - TIE))))
        picks.append(pick)
        at_pick.append(float(gains[pick]))
        open_[pick] = False
        column = kernel[:, pick]
        changed = useful[column[useful] > covered[useful]]
        _lower(gains, kernel, weights, changed, covered, column, sign=-1.0)
        covered[changed] = column[changed]
    return Coverage(np.array(picks, dtype=np.int64), np.array(at_pick), np.maximum(gains, 0.0))


def _lower(
    gains: np.ndarray,
    kernel: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    sign: float,
) -> None:
    """gains += sign * sum over rows of weight * (clip(kernel, low, high) - low): the coverage between two levels."""
    for begin in range(0, len(rows), BLOCK_ROWS):
        part = rows[begin : begin + BLOCK_ROWS]
        block = kernel[part]
        np.clip(block, low[part, None], high[part, None], out=block)
        block -= low[part, None]
        gains += sign * (weights[part] @ block)
