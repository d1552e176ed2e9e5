"""Typicality of the members of a cluster (Hacohen et al., ICML 2022), as members are taken one by one."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.neighbours import nearest_neighbours
from backend.strategies.kernels.views import View

# Neighbours kept beyond those needed, so that members can be taken without a new search.
SPARE = 16
# Added to the mean distance, as the authors do: copies would be infinitely typical.
SOFTENING = 1e-5


class TypicalMembers:
    """The members of one cluster that may still be picked, with 1 / (mean distance to the nearest of them + 1e-5).

    members: rows of the view, ascending; neighbours: how many, or half of the members where there are fewer;
    above ``most`` members a uniform sample of that many is searched, and the others follow in row order once it is
    used up.
    """

    def __init__(self, view: View, members: np.ndarray, neighbours: int, most: int, rng: np.random.Generator) -> None:
        self._view, self._wanted = view, neighbours
        self._members, self._outside = members, members[:0]
        if len(members) > most:
            inside = np.zeros(len(members), dtype=bool)
            inside[rng.choice(len(members), most, replace=False)] = True
            self._members, self._outside = members[inside], members[~inside]
        self._alive = np.ones(len(self._members), dtype=bool)
        self._search()

    def left(self) -> int:
        """How many members can still be taken."""
        return int(self._alive.sum()) + len(self._outside)

    def take(self) -> tuple[int, float]:
        """(row, typicality) of the most typical member left, lowest row on ties; it no longer counts from then on."""
        if not self._alive.any():
            self._members, self._outside = self._outside, self._outside[:0]
            self._alive = np.ones(len(self._members), dtype=bool)
            self._neighbours = np.empty((len(self._members), 0), dtype=np.int64)
            self._distances = np.empty((len(self._members), 0))
        scores = self._scores()
        best = int(np.argmax(np.where(self._alive, scores, -1.0)))
        self._alive[best] = False
        return int(self._members[best]), float(scores[best])

    def remaining(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, typicality) of the members left that were searched."""
        if not self._alive.any():
            return self._members[:0], np.empty(0)
        scores = self._scores()
        return self._members[self._alive], scores[self._alive]

    def _search(self) -> None:
        rows = self._members[self._alive]
        found, squared = nearest_neighbours(self._view, rows, rows, self._wanted + SPARE)
        self._neighbours = np.zeros((len(self._members), found.shape[1]), dtype=np.int64)
        self._neighbours[self._alive] = np.searchsorted(self._members, found)
        self._distances = np.zeros(self._neighbours.shape)
        self._distances[self._alive] = np.sqrt(squared)

    def _scores(self) -> np.ndarray:
        """Typicality of each member among those alive, (members,)."""
        count = min(self._wanted, int(self._alive.sum()) // 2)
        width = self._neighbours.shape[1]
        if count == 0 or width == 0:
            return np.zeros(len(self._members))
        valid = self._alive[self._neighbours]
        if (valid.sum(axis=1)[self._alive] < count).any():
            self._search()
            valid = self._alive[self._neighbours]
        counted = valid & (np.cumsum(valid, axis=1) <= count)
        mean = np.where(counted, self._distances, 0.0).sum(axis=1) / count
        return np.asarray(1.0 / (mean + SOFTENING))
