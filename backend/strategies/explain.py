"""Why a row was picked: facts about each pick that hold for every strategy."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.uncertainty import margin
from backend.strategies.kernels.views import CentredView
from backend.strategies.pool import Pool, rows_of

# Percentiles of novelty are taken against this many unlabelled rows, evenly spaced over the pool.
REFERENCE_ROWS = 2000
# Distances to the nearest labelled row look at this many labelled rows at most, evenly spaced.
LABELLED_ROWS = 5000


def common_parts(pool: Pool, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays aligned with ``indices``; absent where the pool cannot tell.

    uncertainty: percentile (0..1) of the margin uncertainty among the unlabelled rows;
    novelty: percentile of the distance to the nearest labelled row, 1 while nothing is labelled;
    disagreement: 1 where the heads of two modalities, each looking at its own alone, predict different labels;
    missing: 1 where a modality of the record is absent.
    """
    present = np.stack([_present(pool.features[m][indices]) for m in pool.modalities], axis=1)
    parts: dict[str, np.ndarray] = {
        "novelty": _novelty(pool, indices),
        "missing": np.asarray((~present).any(axis=1), dtype=np.float64),
    }
    if pool.probabilities is not None:
        scores = margin(pool.probabilities, multi_label=pool.multi_label)
        parts["uncertainty"] = percentile(scores[indices], scores[pool.unlabelled])
    if len(pool.unimodal_probabilities) > 1:
        parts["disagreement"] = _disagreement(pool, indices, present)
    return parts


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
