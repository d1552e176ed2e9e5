"""k-means++ seeding on factored rows, with exactly the law of the sequential form that the authors use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.blas_threads import one_thread_if
from backend.strategies.kernels.outer_rows import (
    Centres,
    OuterRows,
    lower_to,
    squared_distances,
    squared_norms,
)

F64 = np.dtype(np.float64)
F32 = np.dtype(np.float32)
BLOCK = 64
# Refresh the bounds once the proposals refused since the last time reach this share of the rows: by then they have
# cost about as much as a refresh, so the total is never far above the best moment to refresh.
REFUSED_SHARE = 0.25
# Cost of a refresh beside its products, in picks: reading the rows and making their factors.
READING = 25
# Multiplications up to which the distances left after the last pick are worth computing for every row.
EXACT_BELOW = 4e9
REFINED_ROWS = 4096


@dataclass(frozen=True)
class Seeding:
    """picks: (k,) row indices in draw order; weights: (n,) squared distance to the nearest pick or an upper bound
    of it, 0 for rows that were no candidates; norms: (n,) squared norms."""

    picks: np.ndarray
    weights: np.ndarray
    norms: np.ndarray


def rejection_seeding(
    rows: OuterRows,
    k: int,
    rng: np.random.Generator,
    *,
    candidates: np.ndarray | None = None,
    first: int | None = None,
) -> Seeding:
    """Draws with exactly the law of D^2 sampling, the longest row first, in one pass over the rows plus
    O(k^2 (C + D)).

    Squared distances only fall as picks are added, so those of any earlier moment bound them from above: propose
    from the old ones, accept with probability new / old, where new needs only the distances to the picks added
    since. Too many refusals refresh all of them by one matrix product. Law checked by enumeration in the tests.
    first: index of the first pick; default the largest norm (lowest index on ties).
    Memory: two float64 vectors of length n and chunks. Source: field.md section 2; the idea is that of
    Cohen-Addad et al., NeurIPS 2020.
    """
    norms = squared_norms(rows, F32)
    allowed = np.ones(len(rows), dtype=bool) if candidates is None else candidates
    k = min(k, int(allowed.sum()))
    if k == 0:
        return Seeding(np.empty(0, dtype=np.int64), np.zeros(len(rows)), norms)
    if first is None:
        first = int(np.argmax(np.where(allowed, norms, -1.0)))
    weights = np.where(allowed, np.inf, 0.0)
    lower_to(rows, norms, weights, Centres.of(rows, [first]), F32)
    sampler = _RejectionSampler(rows, norms, weights, [first], rng)
    # The products of a block are small: on a busy machine a second thread makes them wait, not faster.
    with one_thread_if(True):
        while len(sampler.picks) < k:
            if not sampler.draw(k):
                # Only without an offset (plain vectors): every row left coincides with a pick.
                left = allowed.copy()
                left[sampler.picks] = False
                sampler.picks += rng.choice(np.flatnonzero(left), k - len(sampler.picks), replace=False).tolist()
    weights[sampler.picks] = 0.0
    return Seeding(np.array(sampler.picks, dtype=np.int64), weights, norms)


def nearest_pick_distances(rows: OuterRows, seeding: Seeding) -> np.ndarray:
    """Squared distance to the nearest pick, (n,), from the bounds in ``seeding``.

    Exact for all rows when the product of rows and picks is small, else for the 4,096 rows with the largest bounds;
    the others then keep the order of their bounds, scaled to stay below the exact ones.
    """
    weights = seeding.weights.copy()
    picks = Centres.of(rows, seeding.picks)
    width = picks.left.shape[1] + picks.right.shape[1]
    if len(rows) * len(picks) * width <= EXACT_BELOW or len(rows) <= REFINED_ROWS:
        lower_to(rows, seeding.norms, weights, picks, F32)
        return weights
    top = np.sort(np.argpartition(-weights, REFINED_ROWS)[:REFINED_ROWS])
    block = Centres.of(rows, top)
    exact = squared_distances(block.left.astype(F32), block.right.astype(F32), block.norms, picks, rows.offset).min(
        axis=1
    )
    exact = np.minimum(exact, weights[top])
    exact[weights[top] <= 0] = 0.0
    others = np.ones(len(weights), dtype=bool)
    others[top] = False
    highest = weights[others].max()
    if highest > 0:
        weights[others] *= exact[exact > 0].min(initial=highest) / highest * (1.0 - 1e-9)
    weights[top] = exact
    return weights


class _RejectionSampler:
    """State of one rejection run: bounds (``weights``), picks, and the picks newer than the bounds."""

    def __init__(
        self,
        rows: OuterRows,
        norms: np.ndarray,
        weights: np.ndarray,
        picks: list[int],
        rng: np.random.Generator,
    ) -> None:
        self.rows, self.norms, self.weights, self.picks, self.rng = rows, norms, weights, picks, rng
        self.recent: Centres | None = None
        self.refused = 0
        self._retire(picks)
        self._sum_up()

    def _retire(self, picks: list[int]) -> None:
        """A pick is never proposed again: its weight is 0, which is the law without replacement."""
        self.weights[picks] = 0.0

    def _sum_up(self) -> None:
        self.cdf = np.cumsum(self.weights)
        self.refused = 0
        # Of late: both fall by half with each block.
        self.tried = self.accepted = 0.0

    def _refresh(self) -> None:
        if self.recent is not None:
            lower_to(self.rows, self.norms, self.weights, self.recent, F32)
        self.recent = None
        self._retire(self.picks)
        self._sum_up()

    def draw(self, k: int) -> bool:
        """Propose one block; append what is accepted, up to k picks in all. False when no row has weight left."""
        if self.cdf[-1] <= 0:
            return False
        proposals = self._proposals()
        stale = self.weights[proposals]
        block = Centres.of(self.rows, proposals)
        now = stale.copy()
        if self.recent is not None:
            now = np.minimum(now, self._distances(block, self.recent).min(axis=1))
        among = self._distances(block, block)
        accept = self.rng.random(len(proposals))
        chosen = set(self.picks)
        taken: list[int] = []
        for position, index in enumerate(proposals.tolist()):
            if index in chosen or accept[position] * stale[position] >= now[position]:
                self.refused += 1
                continue
            self.picks.append(index)
            chosen.add(index)
            taken.append(position)
            np.minimum(now, among[:, position], out=now)
            if len(self.picks) == k:
                break
        if taken:
            fresh = block.at(taken)
            self.recent = fresh if self.recent is None else self.recent.joined(fresh)
        self.tried = self.tried / 2.0 + position + 1
        self.accepted = self.accepted / 2.0 + len(taken)
        if self.refused >= REFUSED_SHARE * len(self.norms) or self._refresh_pays(k):
            self._refresh()
        return True

    def _refresh_pays(self, k: int) -> bool:
        """Whether the refusals to come, at the rate of late, would cost more than a refresh now. (The law does not
        depend on when bounds are refreshed, as long as that is decided from the past.)"""
        left, recent = k - len(self.picks), 0 if self.recent is None else len(self.recent)
        refusals = left * (self.tried / max(self.accepted, 0.5) - 1.0)
        return refusals * (recent + left / 2.0) >= 2.0 * REFUSED_SHARE * len(self.norms) * (recent + READING)

    def _proposals(self) -> np.ndarray:
        found = np.searchsorted(self.cdf, self.rng.random(BLOCK) * self.cdf[-1], side="right")
        last = int(np.flatnonzero(self.weights > 0)[-1]) if found.max() >= len(self.cdf) else 0
        return np.where(found < len(self.cdf), found, last)

    def _distances(self, block: Centres, centres: Centres) -> np.ndarray:
        left, right = block.left.astype(F32), block.right.astype(F32)
        return squared_distances(left, right, block.norms, centres, self.rows.offset)
