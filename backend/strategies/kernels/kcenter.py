"""k-center greedy in a lazy form that makes the picks of the plain one, in the same order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.blas_threads import one_thread_if
from backend.strategies.kernels.views import View

CHUNK_ROWS = 8192
CENTRE_BLOCK = 2048
PAIRS = 4096
# Rows that are settled among themselves: one in 64, between these.
WORKING_ROWS = (1024, 8192)
# Of these, rows whose distances among themselves are all at hand.
FEW_ROWS = 128
# Rounding of a float32 inner product grows like sqrt(D); this many times it is never met (Higham and Mary, 2019).
SAFETY = 8.0
# A refresh lowers the bounds of this share of the rows, those with the largest; the others wait until they matter.
REFRESH_SHARE = 0.25
# What a pass over rows costs besides its products, in columns of a product: reading and widening.
READING = 24
# Below this many rows one thread is as good as several, and better where other work is running.
SEVERAL_THREADS_FROM = 200_000


@dataclass(frozen=True)
class KCenter:
    """picks: (k,) rows in pick order; radii: (k,) covering radius before each pick (distance of the pick to the
    nearest centre); bounds: (n,) squared distance to the nearest centre or an upper bound of it, 0 at centres."""

    picks: np.ndarray
    radii: np.ndarray
    bounds: np.ndarray


def lazy_k_center(view: View, k: int, anchors: np.ndarray, candidates: np.ndarray) -> KCenter:
    """k times the candidate farthest from its nearest centre, lowest row on ties, in a few passes over the rows.

    anchors: rows that are centres already, at least one; candidates: (n,) bool, without the anchors; k <= their
    number. Source: Sener and Savarese, ICLR 2018, algorithm 1; bmmal.md section 3.

    Distances to the nearest centre only fall, so those of an earlier moment bound them from above. Rows with the
    largest bounds are brought up to date and settled among themselves for as long as the farthest of them is above
    all other bounds; only then are more bounds lowered, by one matrix product. Products run in float32; wherever
    they are too close to decide, float64 differences decide. Worst case O((k + anchors) n D), as matrix products.
    Memory: four numbers a row, chunks, and a few thousand rows in float32.

    Source: field.md section 2 (prototype); lazy greedy goes back to Minoux, 1978.
    """
    search = FarthestFirst(view, anchors, candidates)
    search.until(k)
    return search.found()


def most_central(view: View, candidates: np.ndarray) -> int:
    """The candidate nearest the mean of all rows, lowest row on ties; two passes."""
    n, total = len(view), None
    for begin in range(0, n, CHUNK_ROWS):
        part = view.rows(slice(begin, min(begin + CHUNK_ROWS, n))).sum(axis=0, dtype=np.float64)
        total = part if total is None else total + part
    assert total is not None
    best, where = np.inf, -1
    for begin in range(0, n, CHUNK_ROWS):
        block = view.rows(slice(begin, min(begin + CHUNK_ROWS, n)))
        open_ = candidates[begin : begin + CHUNK_ROWS]
        score = np.einsum("ij,ij->i", block, block) - 2.0 * (block @ (total / n).astype(block.dtype))
        score = np.where(open_, score, np.inf)
        if score.min() < best:
            best, where = float(score.min()), begin + int(score.argmin())
    return where


def _squared_to(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """|row - centre|^2 in float64, of each row by itself: the same bits whatever the rows beside it."""
    difference = rows.astype(np.float64, copy=False) - centre.astype(np.float64, copy=False)
    return np.asarray(np.einsum("ij,ij->i", difference, difference))


class _Centres:
    """Vectors of the centres so far, in an array that grows by doubling; equal ones count once."""

    def __init__(self, first: np.ndarray) -> None:
        self.vectors = np.unique(first, axis=0)
        self.given = self.count = len(self.vectors)
        first = self.vectors
        self.norms = np.einsum("ij,ij->i", first, first)

    def append(self, vector: np.ndarray) -> None:
        if self.count == len(self.vectors):
            self.vectors = np.concatenate([self.vectors, np.empty_like(self.vectors)])
            self.norms = np.concatenate([self.norms, np.empty_like(self.norms)])
        self.vectors[self.count] = vector
        self.norms[self.count] = vector @ vector
        self.count += 1

    def products(self, block: np.ndarray, begin: int) -> np.ndarray:
        """|c|^2 - 2 x c for the centres from ``begin`` on, (b, count - begin), in the dtype of the rows."""
        out = block @ self.vectors[begin : self.count].T
        out *= -2.0
        out += self.norms[begin : self.count]
        return out

    def nearest(self, block: np.ndarray, begin: int) -> np.ndarray:
        """Squared distance (b,) to the nearest of the centres from ``begin`` on, at least one."""
        out = np.full(len(block), np.inf, dtype=block.dtype)
        for first in range(begin, self.count, CENTRE_BLOCK):
            product = block @ self.vectors[first : min(first + CENTRE_BLOCK, self.count)].T
            product *= -2.0
            product += self.norms[first : min(first + CENTRE_BLOCK, self.count)]
            np.minimum(out, product.min(axis=1), out=out)
        return out + np.einsum("ij,ij->i", block, block)


class FarthestFirst:
    """The search of ``lazy_k_center``, which can be looked at before it picks and goes on where it stopped.

    bound[i] is the float32 squared distance of row i to the nearest of the first level[i] centres, -inf at rows that
    cannot be picked (any more). Before the first pick every bound is up to date.
    """

    def __init__(self, view: View, anchors: np.ndarray, candidates: np.ndarray) -> None:
        self.small = len(view) < SEVERAL_THREADS_FROM
        with one_thread_if(self.small):
            self._begin(view, anchors, candidates)

    def _begin(self, view: View, anchors: np.ndarray, candidates: np.ndarray) -> None:
        self.view, self.open = view, candidates.copy()
        self.centres = _Centres(view.rows(anchors))
        self.bound = np.zeros(len(view), dtype=np.float32)
        self.level = np.zeros(len(view), dtype=np.int32)
        self.picks: list[int] = []
        self.spent = 0.0
        largest = 0.0
        for begin in range(0, len(view), CHUNK_ROWS):
            part = slice(begin, min(begin + CHUNK_ROWS, len(view)))
            block = view.rows(part)
            largest = max(largest, float(np.einsum("ij,ij->i", block, block).max(initial=0.0)))
            self.bound[part] = self.centres.nearest(block, 0)
        width = self.centres.vectors.shape[1]
        # Error of d^2 = |x|^2 + |c|^2 - 2 x c: two inner products of rounding sqrt(D) u, and the sums.
        self.slack = 2.0 * largest * np.finfo(np.float32).eps * (SAFETY * np.sqrt(width) / 2.0 + 4.0)
        self.bound[~self.open] = -np.inf
        self.level[:] = self.centres.count
        self.working = int(np.clip(len(view) // 64, *WORKING_ROWS))

    def until(self, k: int) -> None:
        """Go on until there are ``k`` picks in all; k <= number of candidates."""
        with one_thread_if(self.small):
            while len(self.picks) < k:
                before = len(self.picks)
                # Many small products: on a busy machine a second thread waits more than it works.
                with one_thread_if(True):
                    self.settle(k)
                if len(self.picks) == k:
                    break
                if len(self.picks) == before and not self.stale():
                    self.settle_ties(k)
                elif len(self.picks) == before or self.spent >= self.refresh_cost():
                    self.refresh()

    def found(self) -> KCenter:
        """What was picked so far."""
        bounds = np.maximum(self.bound.astype(np.float64), 0.0)
        return KCenter(np.array(self.picks, dtype=np.int64), self.radii(), bounds)

    def radius(self) -> float:
        """Distance of the farthest candidate to its nearest centre, in float64; before the first pick only."""
        top = np.flatnonzero((self.bound >= self.bound.max() - 2.0 * self.slack) & self.open)
        parts = (top[begin : begin + CHUNK_ROWS] for begin in range(0, len(top), CHUNK_ROWS))
        with one_thread_if(True):
            return float(np.sqrt(max(self._exact(self.view.rows(part)).max() for part in parts)))

    def leave_out(self, rows: np.ndarray) -> None:
        """These rows are no candidates any more."""
        self.open[rows] = False
        self.bound[rows] = -np.inf

    def stale(self) -> bool:
        """Whether some row with a large bound has not seen the latest centres."""
        top = self.bound.max()
        return bool((self.level[self.bound >= top - 2.0 * self.slack] < self.centres.count).any())

    def refresh_cost(self) -> float:
        """Multiplications of a refresh, by row length."""
        return REFRESH_SHARE * len(self.bound) * (READING + self.centres.count - float(self.level.min()))

    def refresh(self) -> None:
        """Lower the bounds of the rows with the largest ones."""
        self.spent = 0.0
        share = max(int(REFRESH_SHARE * len(self.bound)), self.working)
        if share < len(self.bound):
            cut = np.partition(self.bound, len(self.bound) - share)[len(self.bound) - share]
            # Never leave out what cannot be told from the largest: ``stale`` would ask again and again.
            cut = min(cut, self.bound.max() - 2.0 * self.slack)
            rows = np.flatnonzero((self.bound >= cut) & self.open)
        else:
            rows = np.flatnonzero(self.open)
        for first in range(0, len(rows), CHUNK_ROWS):
            part = rows[first : first + CHUNK_ROWS]
            self._lower(part, self.view.rows(part))

    def _lower(self, rows: np.ndarray, block: np.ndarray) -> None:
        """Bring the bounds of some rows, whose vectors are given, up to date."""
        levels = self.level[rows]
        for level in np.unique(levels[levels < self.centres.count]):
            behind = np.flatnonzero(levels == level)
            nearest = self.centres.nearest(block if len(behind) == len(rows) else block[behind], level)
            self.bound[rows[behind]] = np.minimum(self.bound[rows[behind]], nearest)
        self.level[rows] = self.centres.count

    def _take(self, row: int, vector: np.ndarray) -> None:
        self.picks.append(row)
        self.centres.append(vector)
        self.open[row] = False
        self.bound[row] = -np.inf

    def settle(self, k: int) -> None:
        """Pick among the rows with the largest bounds for as long as no other row can be farther."""
        count = min(self.working, len(self.bound))
        chosen = np.argpartition(-self.bound, count - 1)[:count] if count < len(self.bound) else np.arange(count)
        rows = np.sort(chosen[self.open[chosen]])
        outside = self.bound.copy()
        outside[rows] = -np.inf
        limit = float(outside.max()) + 2.0 * self.slack
        block = self.view.rows(rows)
        behind = self.centres.count - float(self.level[rows].mean()) if len(rows) else 0.0
        self._lower(rows, block)
        before = len(self.picks)
        while len(self.picks) < k and self.bound[rows].max(initial=-np.inf) > limit:
            self._settle_few(rows, block, limit, k)
            self._lower(rows, block)
        self.spent += len(rows) * (READING + behind + len(self.picks) - before)

    def _settle_few(self, rows: np.ndarray, block: np.ndarray, limit: float, k: int) -> None:
        """One pick or more among the farthest of rows whose bounds are up to date and reach above ``limit``."""
        value = self.bound[rows]
        few: np.ndarray = np.arange(len(rows))
        if len(rows) > FEW_ROWS:
            order = np.argpartition(-value, FEW_ROWS)
            few = np.sort(order[:FEW_ROWS])
            closest = float(value[order[FEW_ROWS]]) + 2.0 * self.slack
            if value.max() <= closest:
                # Too many are alike: decide among all of them, once.
                near = np.flatnonzero(value >= value.max() - 2.0 * self.slack)
                winner = near[np.argmax(self._exact(block[near]))]
                self._take(int(rows[winner]), block[winner])
                return
            limit = max(limit, closest)
        value, vectors = value[few], block[few]
        lengths = np.einsum("ij,ij->i", vectors, vectors)
        among = lengths[:, None] + lengths[None, :] - 2.0 * (vectors @ vectors.T)
        while len(self.picks) < k and value.max(initial=-np.inf) > limit:
            near = np.flatnonzero(value >= value.max() - 2.0 * self.slack)
            winner = int(near[0 if len(near) == 1 else np.argmax(self._exact(vectors[near]))])
            self._take(int(rows[few[winner]]), vectors[winner])
            np.minimum(value, among[winner], out=value)
            value[winner] = -np.inf

    def _exact(self, block: np.ndarray) -> np.ndarray:
        """Squared distance to the nearest centre in float64 differences, (b,)."""
        out = np.full(len(block), np.inf)
        for begin in range(0, len(block), CENTRE_BLOCK):
            part = block[begin : begin + CENTRE_BLOCK]
            product = self.centres.products(part, 0)
            row, column = np.nonzero(product <= product.min(axis=1, keepdims=True) + 2.0 * self.slack)
            for first in range(0, len(row), PAIRS):
                i, j = row[first : first + PAIRS], column[first : first + PAIRS]
                np.minimum.at(out, begin + i, _squared_to(part[i], self.centres.vectors[j]))
        return out

    def settle_ties(self, k: int) -> None:
        """Pick where float32 cannot tell many rows apart: float64 throughout, among the best of them."""
        top = float(self.bound.max())
        tied = np.flatnonzero((self.bound >= top - 2.0 * self.slack) & self.open)
        parts = (tied[begin : begin + CHUNK_ROWS] for begin in range(0, len(tied), CHUNK_ROWS))
        value = np.concatenate([self._exact(self.view.rows(part)) for part in parts])
        if value.max() == 0.0:
            # Every row left coincides with a centre.
            rows = np.flatnonzero(self.open)[: k - len(self.picks)]
            for row, vector in zip(rows.tolist(), self.view.rows(rows), strict=True):
                self._take(row, vector)
            return
        order = np.lexsort((tied, -value))[: self.working]
        rows, value = tied[order], value[order]
        last = (-value[-1], rows[-1])
        block = self.view.rows(rows)
        while len(self.picks) < k:
            winner = int(np.lexsort((rows, -value))[0])
            # Rows left out come after the last one kept, or below what float32 cannot tell apart.
            if (-value[winner], rows[winner]) > last or value[winner] < top - self.slack:
                break
            self._take(int(rows[winner]), block[winner])
            np.minimum(value, _squared_to(block, block[winner]), out=value)
            value[winner] = -np.inf

    def radii(self) -> np.ndarray:
        """Distance of each pick to the nearest centre before it, (k,)."""
        first, count = self.centres.given, self.centres.count
        vectors = self.centres.vectors[:count].astype(np.float64)
        lengths = np.einsum("ij,ij->i", vectors, vectors)
        squared = np.full(count - first, np.inf)
        for begin in range(0, count, CENTRE_BLOCK):
            part = slice(begin, min(begin + CENTRE_BLOCK, count))
            distance = lengths[first:, None] + lengths[None, part] - 2.0 * (vectors[first:] @ vectors[part].T)
            distance[np.arange(begin, part.stop)[None, :] >= np.arange(first, count)[:, None]] = np.inf
            np.minimum(squared, distance.min(axis=1), out=squared)
        return np.sqrt(np.maximum(squared, 0.0))
