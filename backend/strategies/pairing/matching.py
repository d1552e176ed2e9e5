"""The third step: which candidates an item may belong to, and how far the best two are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backend.strategies.kernels.best_matches import best_matches
from backend.strategies.kernels.hubness import hub_penalty
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.pairing.pairs import Pairs, other
from backend.strategies.pairing.spaces import Space

SIMILARITIES = ("plain", "csls", "lse")
MARGINS = ("plain", "group")
# Candidates closer than this stand for one another (unaligned.md section 6.7).
SAME_GROUP = 0.95
# Items of the asking side that hubness is measured on.
HUB_ROWS = 1000
# How many candidates are looked at for a second group at first; more where all of them are of the first.
GROUP_DEPTH = 16


@dataclass(frozen=True)
class Matches:
    """rows, scores: (q, k) candidates best first and their (corrected) similarities, -1 and -inf behind those of an
    item that has fewer; margin: (q,) how far the two best are apart, inf with fewer than two; guess, runner: (q,) the
    rows that it is between, -1 for none."""

    rows: np.ndarray
    scores: np.ndarray
    margin: np.ndarray
    guess: np.ndarray
    runner: np.ndarray

    @classmethod
    def plain(cls, rows: np.ndarray, scores: np.ndarray) -> Matches:
        """The margin between the best two candidates."""
        absent = np.full(len(rows), -1, dtype=np.int64)
        margin = np.full(len(rows), np.inf)
        if rows.shape[1] > 1:
            np.subtract(scores[:, 0], scores[:, 1], out=margin, where=np.isfinite(scores[:, 1]))
        guess = rows[:, 0] if rows.shape[1] > 0 else absent
        return cls(rows, scores, margin, guess, rows[:, 1] if rows.shape[1] > 1 else absent)

    def column(self, place: int) -> np.ndarray:
        """(q,) scores of the candidates at this place, not finite where there are not so many."""
        return self.scores[:, place] if place < self.scores.shape[1] else np.full(len(self.scores), np.nan)

    def at(self, places: np.ndarray) -> Matches:
        """Those of some queries."""
        return Matches(
            self.rows[places], self.scores[places], self.margin[places], self.guess[places], self.runner[places]
        )


@dataclass(frozen=True)
class Matching:
    """Items of one modality against the candidates of the other, by the cosine of their joint rows.

    penalty: (n,) float64 subtracted from the similarity to each candidate, inf where it is none; refused: item ->
    rows that are no candidates of this one.
    """

    own: Space
    theirs: Space
    penalty: np.ndarray
    refused: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        pairs: Pairs,
        modality: str,
        similarity: str = "plain",
        temperature: float = 0.05,
        rng: np.random.Generator | None = None,
    ) -> Matching:
        """Queries of ``modality``. similarity: see SIMILARITIES and ``kernels.hubness``, where the hubness of a
        candidate is measured on ``HUB_ROWS`` random unpaired items of the asking side (``rng`` draws them)."""
        theirs = Space.of(pairs, other(modality), "joint", "cosine")
        own = Space.of(pairs, modality, "joint", "cosine")
        candidates = pairs.candidates(other(modality))
        penalty = np.zeros(len(candidates))
        if similarity != "plain" and rng is not None:
            asking = np.flatnonzero(pairs.open(modality) | pairs.candidates(modality))
            sample, _ = uniform_sample(asking, HUB_ROWS, rng)
            penalty = hub_penalty(theirs, own.rows(sample), similarity, temperature)
        return cls(own, theirs, np.where(candidates, penalty, np.inf), pairs.refused.get(modality, {}))

    def best(self, items: np.ndarray, k: int, *, margin: str = "plain") -> Matches:
        """The ``k`` >= 2 best candidates of some items, fewer if there are fewer.

        margin "plain": s1 - s2, as reviewers quote the paper (unaligned.md section 2, step 3); "group": s1 minus the
        best similarity to a candidate whose cosine with the first is at most ``SAME_GROUP`` (section 6.7; groups
        around the best candidate are ours), inf where there is none.
        """
        depth = max(k, GROUP_DEPTH) if margin == "group" else k
        rows, scores = self._best(items, depth)
        found = Matches.plain(rows[:, :k], scores[:, :k])
        if margin == "plain" or rows.shape[1] < 2:
            return found
        level, runner = np.full(len(items), -np.inf), np.full(len(items), -1, dtype=np.int64)
        waiting: np.ndarray = np.arange(len(items))
        while True:
            place = self._second_group(rows)
            done = place >= 0
            level[waiting[done]] = scores[done, place[done]]
            runner[waiting[done]] = rows[done, place[done]]
            waiting = waiting[~done]
            if not len(waiting) or rows.shape[1] < depth:
                break
            # All of them stand for the first: look deeper, for these queries only.
            depth *= 8
            rows, scores = self._best(items[waiting], depth)
        return Matches(found.rows, found.scores, found.scores[:, 0] - level, found.guess, runner)

    def _best(self, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, scores) of the k best that were not refused."""
        refused = {place: rows for place, i in enumerate(items.tolist()) if (rows := self.refused.get(i)) is not None}
        spare = max(map(len, refused.values()), default=0)
        rows, scores = best_matches(self.own.rows(items), self.theirs, k + spare, self.penalty)
        for place, never in refused.items():
            left = np.flatnonzero(~np.isin(rows[place], never))
            kept, level = rows[place, left], scores[place, left]
            rows[place], scores[place] = -1, -np.inf
            rows[place, : len(left)], scores[place, : len(left)] = kept, level
        return rows[:, :k], scores[:, :k]

    def _second_group(self, rows: np.ndarray) -> np.ndarray:
        """(q,) place of the first candidate of another group than the best one's, -1 where there is none."""
        out = np.empty(len(rows), dtype=np.int64)
        for place, row in enumerate(rows):
            vectors = self.theirs.rows(row[row >= 0]).astype(np.float64)
            # The best one is of its own group, whatever rounding says.
            apart = vectors[1:] @ vectors[0] <= SAME_GROUP if len(vectors) else np.zeros(0, dtype=bool)
            out[place] = int(np.argmax(apart)) + 1 if apart.any() else -1
        return out
