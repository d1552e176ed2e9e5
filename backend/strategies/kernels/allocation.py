"""Which b records: F(S) = mean of I over S - weight x mean similarity within S.

Source: the objective is ascmr.md section 2.7, [OURS] where the printed one has no effect (a constant instead of a
multiplier); solvers are ours, the paper gives none. All are deterministic, ties go to the lowest index.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from backend.errors import AllocationInvalid
from backend.strategies.kernels.density import Kernel, mean_similarity

# A swap must gain this share of the spread of I / b, or rounding could swap for ever.
LEAST_GAIN = 1e-9
# Numbers held in columns that Frank-Wolfe may want again.
CACHED_NUMBERS = 50_000_000


@dataclass(frozen=True)
class Allocation:
    """picks: (b,) in pick order; penalties: (n,) sum of the similarities to the picks, a pick's own 1 left out."""

    picks: np.ndarray
    penalties: np.ndarray

    @classmethod
    def of(cls, picks: np.ndarray, kernel: Kernel) -> Allocation:
        """These picks; one column of the kernel for each."""
        penalties = np.zeros(len(kernel))
        for pick in picks.tolist():
            penalties += kernel.column(pick)
        penalties[picks] -= 1.0
        return cls(picks, penalties)


@dataclass(frozen=True)
class Relaxation:
    """shares: (n,) in [0, 1] with sum b; value: F of them; bound: no set of b records has a larger F."""

    shares: np.ndarray
    value: float
    bound: float
    rounds: int

    def rounded(self, b: int) -> np.ndarray:
        """The b largest shares, ascending index."""
        return np.sort(np.argsort(-self.shares, kind="stable")[:b])


def objective(information: np.ndarray, kernel: Kernel, picks: np.ndarray, weight: float) -> float:
    """F(S)."""
    return float(information[picks].mean()) - weight * mean_similarity(kernel, picks)


def penalty_scale(b: int, weight: float) -> float:
    """What a sum of similarities to the rest of the batch takes from F: 2 weight / (b (b - 1)), 0 for one pick."""
    return 2.0 * weight / (b * (b - 1)) if b > 1 else 0.0


def _checked(information: np.ndarray, kernel: Kernel, b: int, weight: float) -> np.ndarray:
    n = len(information)
    if len(kernel) != n or not 1 <= b <= n:
        raise AllocationInvalid(f"{b} picks from {n} records with a kernel of {len(kernel)}; 1 <= picks <= records")
    if not weight >= 0 or not np.isfinite(information).all():
        raise AllocationInvalid(f"weight is {weight} and must be 0 or more, and every information finite")
    return np.asarray(information, dtype=np.float64)


def greedy_allocation(information: np.ndarray, kernel: Kernel, b: int, weight: float) -> Allocation:
    """b times the record with the largest I_i / b - scale x (similarity to the picks so far).

    b columns of the kernel, O(n) memory. Raises AllocationInvalid for an impossible budget.
    """
    worth = _checked(information, kernel, b, weight) / b
    scale = penalty_scale(b, weight)
    penalties = np.zeros(len(worth))
    gains = worth.copy()
    picks = np.empty(b, dtype=np.int64)
    for place in range(b):
        pick = int(np.argmax(gains))
        picks[place] = pick
        column = kernel.column(pick)
        penalties += column
        penalties[pick] -= column[pick]
        # Picks have a gain of minus infinity, which stays.
        gains -= scale * column
        gains[pick] = -np.inf
    return Allocation(picks, penalties)


def improved(
    information: np.ndarray, kernel: Kernel, start: Allocation, weight: float, *, sweeps: int = 100
) -> Allocation:
    """1-swap ascent: each pick in turn gives its place to the record that raises F most, until no swap helps.

    F never falls. Holds b columns: b n numbers, O(b n) a sweep.
    """
    b = len(start.picks)
    worth = _checked(information, kernel, b, weight) / b
    scale = penalty_scale(b, weight)
    picks, penalties = start.picks.copy(), start.penalties.copy()
    columns = kernel.columns(picks)
    chosen = np.zeros(len(worth), dtype=bool)
    chosen[picks] = True
    least = LEAST_GAIN * max(float(worth.max() - worth.min()), scale, 1e-300)
    for _ in range(sweeps):
        moved = False
        for place in range(b):
            old = int(picks[place])
            without = worth - scale * (penalties - columns[place])
            without[chosen] = -np.inf
            new = int(np.argmax(without))
            if without[new] <= worth[old] - scale * penalties[old] + least:
                continue
            moved = True
            fresh = kernel.column(new)
            # The old pick is penalised by all picks but itself, and so is the new one.
            penalties += fresh - columns[place]
            penalties[old] += columns[place][old]
            penalties[new] -= fresh[new]
            chosen[old], chosen[new] = False, True
            picks[place], columns[place] = new, fresh
        if not moved:
            break
    return Allocation(picks, penalties)


class _Columns:
    """Columns of a kernel, the last used ones kept."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._kept = kernel, OrderedDict[int, np.ndarray]()
        self._most = CACHED_NUMBERS // max(len(kernel), 1)

    def sum_of(self, rows: np.ndarray) -> np.ndarray:
        """Sum of some columns, (n,) float64."""
        total = np.zeros(len(self._kernel))
        for row in rows.tolist():
            column = self._kept.pop(row, None)
            column = self._kernel.column(row) if column is None else column
            total += column
            if self._most:
                self._kept[row] = column
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return total


def frank_wolfe(
    information: np.ndarray,
    kernel: Kernel,
    b: int,
    weight: float,
    *,
    start: Allocation | None = None,
    rounds: int = 50,
    tolerance: float = 1e-3,
) -> Relaxation:
    """Maximum of F over shares q in [0, 1]^n with sum b: I.q / b - weight (q P q - b) / (b (b - 1)), by Frank-Wolfe
    with exact line search from the set ``start``, or from equal shares, which takes all n columns.

    P positive semidefinite makes this concave, and on sets it is F: value + (largest gradient step) is above F of
    every set. The bound returned is the least one met, and holds after any number of rounds, 0 included. Stops when
    bound - value <= tolerance x (spread of I). b columns a round at most; columns met again are kept as far as
    ``CACHED_NUMBERS`` goes. Raises AllocationInvalid. Source: Frank and Wolfe, 1956; Jaggi, ICML 2013.
    """
    worth = _checked(information, kernel, b, weight) / b
    half = penalty_scale(b, weight) / 2.0
    columns = _Columns(kernel)
    shares = np.full(len(worth), b / len(worth)) if start is None else np.zeros(len(worth))
    if start is None:
        pull = columns.sum_of(np.arange(len(worth))) * (b / len(worth))
    else:
        shares[start.picks] = 1.0
        pull = start.penalties + shares
    bound, done, enough = np.inf, 0, tolerance * float(information.max() - information.min())
    while True:
        value = float(worth @ shares - half * (shares @ pull - b))
        slope = worth - 2.0 * half * pull
        vertex = np.argsort(-slope, kind="stable")[:b]
        gap = max(float(slope[vertex].sum() - slope @ shares), 0.0)
        bound = min(bound, value + gap)
        if done == rounds or bound - value <= enough:
            return Relaxation(shares, value, bound, done)
        ahead = columns.sum_of(vertex)
        # Along q + step (v - q), F changes by step x gap - step^2 x curve.
        curve = half * float(ahead[vertex].sum() - 2.0 * ahead @ shares + shares @ pull)
        step = 1.0 if gap >= 2.0 * curve else gap / (2.0 * curve)
        shares *= 1.0 - step
        shares[vertex] += step
        pull += step * (ahead - pull)
        done += 1
