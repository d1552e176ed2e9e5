"""Why a row was picked: facts about each pick that hold for every strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from backend.strategies.kernels.uncertainty import margin
from backend.strategies.kernels.views import CentredView
from backend.strategies.pool import Pool, rows_of

# Percentiles of novelty are taken against this many unlabelled rows, evenly spaced over the pool.
REFERENCE_ROWS = 2000
# Distances to the nearest labelled row look at this many labelled rows at most, evenly spaced.
LABELLED_ROWS = 5000
# What every strategy tells; the rest of its parts are its own.
COMMON = frozenset({"novelty", "missing", "uncertainty", "disagreement"})


class Explanation(Mapping[str, np.ndarray]):
    """Arrays aligned with ``indices``, each computed at the first look: a replay that asks for none pays for none.

    A strategy's own parts, and those that hold for every strategy, absent where the pool cannot tell:
    uncertainty: percentile (0..1) of the margin uncertainty among the unlabelled rows;
    novelty: percentile of the distance to the nearest labelled row, 1 while nothing is labelled;
    disagreement: 1 where the heads of two modalities, each looking at its own alone, predict different labels;
    missing: 1 where a modality of the record is absent.
    """

    def __init__(self, pool: Pool, indices: np.ndarray, own: Mapping[str, np.ndarray]) -> None:
        # Who goes on labelling in place must not change what is told about this selection.
        self._pool, self._indices = replace(pool, labelled=pool.labelled.copy()), indices
        self._kept = dict(own)
        names = ["novelty", "missing"]
        names += ["uncertainty"] * (pool.probabilities is not None)
        names += ["disagreement"] * (len(pool.unimodal_probabilities) > 1)
        self._names = tuple(dict.fromkeys([*names, *own]))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._kept:
            self._kept[name] = self._compute(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _compute(self, name: str) -> np.ndarray:
        pool, indices = self._pool, self._indices
        if name == "novelty":
            return _novelty(pool, indices)
        if name == "uncertainty":
            scores = margin(pool.require_probabilities(), multi_label=pool.multi_label)
            return percentile(scores[indices], scores[pool.unlabelled])
        present = np.stack([_present(pool.features[m][indices]) for m in pool.modalities], axis=1)
        if name == "missing":
            return np.asarray((~present).any(axis=1), dtype=np.float64)
        return _disagreement(pool, indices, present)


def own_parts(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parts that only this strategy tells; the common ones are not computed for it."""
    return {name: parts[name] for name in parts if name not in COMMON}


def percentile(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the reference below each value, ties counted half; in [0, 1]."""
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return np.asarray(below / (2.0 * len(ordered)))


def _present(block: np.ndarray) -> np.ndarray:
    return np.asarray((block != 0).any(axis=1))


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]


def _novelty(pool: Pool, indices: np.ndarray) -> np.ndarray:
    labelled = _evenly(np.flatnonzero(pool.labelled), LABELLED_ROWS)
    if not len(labelled):
        return np.ones(len(indices))
    reference = _evenly(pool.unlabelled, REFERENCE_ROWS)
    view = CentredView.of(pool.features, rows=reference)
    anchors = view.rows(labelled)
    nearest = [view.squared_distances(rows, anchors).min(axis=1) for rows in (indices, reference)]
    return percentile(nearest[0], nearest[1])


def _disagreement(pool: Pool, indices: np.ndarray, present: np.ndarray) -> np.ndarray:
    answers = []
    for modality in pool.modalities:
        p = rows_of(pool.unimodal_probabilities, modality, indices)
        answers.append(p >= 0.5 if pool.multi_label else p.argmax(axis=1)[:, None])
    differ = np.zeros(len(indices), dtype=bool)
    for a in range(len(answers)):
        for b in range(a):
            differ |= (answers[a] != answers[b]).any(axis=1) & present[:, a] & present[:, b]
    return differ.astype(np.float64)
