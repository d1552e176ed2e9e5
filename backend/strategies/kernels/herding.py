"""Greedy maximisation of uncertainty-weighted coverage (UHerding, Bae et al., ICLR 2025, arXiv 2412.20644)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.blas_threads import on_one_thread

BLOCK_ROWS = 128
# Gains this close to the best are a tie and the lowest position wins: the pick then does not depend on the last
# digits of a matrix product, which change with the number of BLAS threads.
TIE = 1e-5
# A gain this small beside the first one is rounding: nothing is left to cover.
EXHAUSTED = 1e-6
TINY = 1e-30


@dataclass(frozen=True)
class Coverage:
    """picks: (k,) positions; gains: (k,) gain of each when it was picked; remaining: (r,) gains after the batch."""

    picks: np.ndarray
    gains: np.ndarray
    remaining: np.ndarray


@on_one_thread
def greedy_coverage(
    kernel: np.ndarray, uncertainty: np.ndarray, weights: np.ndarray, covered: np.ndarray, k: int
) -> Coverage:
    """k times: argmax_x of sum_i weights_i [kernel_ix - covered_i]_+, then covered_i <- max(covered_i, kernel_ix).

    kernel: (r, r) float32 with ones on the diagonal; rows and candidates are the same records. uncertainty: (r,) of
    these records; weights: (r,) what each stands for in the sum: its own uncertainty, or more where the records are
    a sample. A candidate covers itself only once, whatever it stands for, so its own term counts its uncertainty
    and not its weight. covered: (r,) in [0, 1], coverage by what is labelled. k <= r.
    After a pick only the rows that it covers better are summed again: O(r^2), then O(changed rows r) a pick.
    Once nothing is left to cover, by falling uncertainty.
    """
    covered = covered.astype(np.float32)
    excess = (weights - uncertainty).astype(np.float32)
    weights = weights.astype(np.float32)
    sums = np.zeros(len(kernel))
    useful = np.flatnonzero((weights > 0) & (covered < 1))
    _lower(sums, kernel, weights, useful, covered, np.ones_like(covered), sign=1.0)
    open_ = np.ones(len(sums), dtype=bool)
    picks: list[int] = []
    at_pick: list[float] = []
    gains = sums - excess * (1.0 - covered)
    floor = EXHAUSTED * max(float(gains.max(initial=0.0)), TINY)
    while len(picks) < k:
        best = float(gains[open_].max())
        if best <= floor:
            rest = np.flatnonzero(open_)
            filled = rest[np.argsort(-uncertainty[rest], kind="stable")][: k - len(picks)]
            picks += filled.tolist()
            at_pick += [0.0] * len(filled)
            break
        pick = int(np.argmax(open_ & (gains >= best * (1.0 - TIE))))
        picks.append(pick)
        at_pick.append(float(gains[pick]))
        open_[pick] = False
        column = kernel[:, pick]
        changed = useful[column[useful] > covered[useful]]
        _lower(sums, kernel, weights, changed, covered, column, sign=-1.0)
        covered[changed] = column[changed]
        gains = sums - excess * (1.0 - covered)
    return Coverage(np.array(picks, dtype=np.int64), np.array(at_pick), np.maximum(gains, 0.0))


def _lower(
    sums: np.ndarray,
    kernel: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    sign: float,
) -> None:
    """sums += sign * sum over rows of weight * (clip(kernel, low, high) - low): the coverage between two levels."""
    for begin in range(0, len(rows), BLOCK_ROWS):
        part = rows[begin : begin + BLOCK_ROWS]
        block = kernel[part]
        np.clip(block, low[part, None], high[part, None], out=block)
        block -= low[part, None]
        sums += sign * (weights[part] @ block)
