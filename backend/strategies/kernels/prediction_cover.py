"""k-center under the symmetric divergence of predictions, by matrix products and with bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.strategies.kernels.linear_scores import row_chunks

# Probabilities nearer to 0 and 1 than this count as this near.
NEAREST = 1e-6
# Rows that are brought up to date together, those with the largest bounds.
WORKING_ROWS = 4096
CHUNK_ROWS = 8192
CENTRE_BLOCK = 1024


@dataclass(frozen=True)
class Cover:
    """picks: (k,) in pick order; radii: (k,) divergence of each pick from its nearest centre when it was picked;
    bounds: (n,) upper bounds of the divergence from the nearest centre, 0 at picks."""

    picks: np.ndarray
    radii: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True)
class PredictionCover:
    """Divergence J(p, q) = 1/2 sum (p - q)(ln p - ln q), from p . ln p and two products. probabilities: (n, C)."""

    probabilities: np.ndarray
    multi_label: bool

    @classmethod
    def of(cls, probabilities: np.ndarray, *, multi_label: bool) -> PredictionCover:
        """Predictions that sum to 1, or yes-no predictions for each class."""
        return cls(probabilities, multi_label)

    def _factors(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """(w, l) float64 with J(i, j) = 1/2 (w_i - w_j) . (l_i - l_j): p and ln p, or q and its log-odds."""
        p = np.clip(np.asarray(self.probabilities[rows], dtype=np.float64), NEAREST, 1.0 - NEAREST)
        return (p, np.log(p) - np.log1p(-p)) if self.multi_label else (p, np.log(p))

    def divergences(self, rows: np.ndarray | slice, centres: np.ndarray) -> np.ndarray:
        """J of some rows from others, (b, c) float64, not below 0; exactly 0 on equal predictions to rounding."""
        w, logs = self._factors(rows)
        w_c, logs_c = self._factors(centres)
        own = np.einsum("ij,ij->i", w, logs)[:, None] + np.einsum("ij,ij->i", w_c, logs_c)[None, :]
        return np.maximum(0.5 * (own - w @ logs_c.T - logs @ w_c.T), 0.0)

    def _nearest(self, rows: np.ndarray | slice, centres: np.ndarray) -> np.ndarray:
        blocks = [centres[part] for part in row_chunks(len(centres), CENTRE_BLOCK)]
        return np.min([self.divergences(rows, block).min(axis=1) for block in blocks], axis=0)

    def farthest_first(self, k: int, anchors: np.ndarray, candidates: np.ndarray) -> Cover:
        """k times the candidate farthest from the anchors (one at least) and earlier picks, lowest row on ties.

        Divergences from the nearest centre only fall, so old ones are bounds: only the rows with the largest bounds
        are brought up to date, until the farthest of them is above all other bounds. k <= number of candidates.
        """
        bounds = np.full(len(self.probabilities), -np.inf)
        for part in row_chunks(len(candidates), CHUNK_ROWS):
            bounds[candidates[part]] = self._nearest(candidates[part], anchors)
        seen = np.zeros(len(bounds), dtype=np.int64)
        picks: list[int] = []
        radii: list[float] = []
        while len(picks) < k:
            working = _largest(bounds, WORKING_ROWS)
            outside = bounds.copy()
            outside[working] = -np.inf
            limit = float(outside.max())
            self._refresh(working, bounds, seen, picks)
            while len(picks) < k:
                value = float(bounds[working].max())
                # Equal to a bound outside: a row there could be lower, so it is looked at first.
                if value < limit or (value == limit and np.isfinite(limit)) or not np.isfinite(value):
                    break
                pick = int(working[np.argmax(bounds[working])])
                picks.append(pick)
                radii.append(value)
                bounds[pick] = -np.inf
                self._refresh(working, bounds, seen, picks)
            else:
                break
            if value == limit:
                self._settle_tie(value, bounds, seen, picks, radii)
        bounds[picks] = 0.0
        return Cover(np.array(picks, dtype=np.int64), np.array(radii), np.maximum(bounds, 0.0))

    def _settle_tie(
        self, value: float, bounds: np.ndarray, seen: np.ndarray, picks: list[int], radii: list[float]
    ) -> None:
        """One pick where the rows at hand and others may be equally far: all that may be are brought up to date."""
        level = np.flatnonzero(bounds >= value)
        self._refresh(level, bounds, seen, picks)
        pick = int(level[np.argmax(bounds[level])])
        if bounds[pick] >= value:
            picks.append(pick)
            radii.append(float(bounds[pick]))
            bounds[pick] = -np.inf

    def _refresh(self, rows: np.ndarray, bounds: np.ndarray, seen: np.ndarray, picks: list[int]) -> None:
        """Bring the bounds of some rows up to date with the picks."""
        behind = rows[(seen[rows] < len(picks)) & np.isfinite(bounds[rows])]
        for level in np.unique(seen[behind]):
            part = behind[seen[behind] == level]
            for chunk in row_chunks(len(part), CHUNK_ROWS):
                fresh = np.array(picks[level:], dtype=np.int64)
                bounds[part[chunk]] = np.minimum(bounds[part[chunk]], self._nearest(part[chunk], fresh))
        seen[behind] = len(picks)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The rows of the largest values, ascending index."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.sort(np.argpartition(-values, count - 1)[:count])
