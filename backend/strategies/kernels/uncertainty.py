"""Uncertainty of a prediction, larger = more uncertain. Single-label: p sums to 1; multi-label: q per class."""

from __future__ import annotations

import numpy as np

CHUNK_ROWS = 65_536


def _by_chunks(probabilities: np.ndarray, measure: str, multi_label: bool) -> np.ndarray:
    out = np.empty(len(probabilities))
    for begin in range(0, len(out), CHUNK_ROWS):
        part = np.asarray(probabilities[begin : begin + CHUNK_ROWS], dtype=np.float64)
        out[begin : begin + CHUNK_ROWS] = _MEASURES[measure, multi_label](part)
    return out


def least_confidence(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """1 - max p (n,); multi-label: mean over classes of min(q, 1 - q). Lewis and Gale, SIGIR 1994."""
    return _by_chunks(probabilities, "least_confidence", multi_label)


def margin(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """1 - (p1 - p2) (n,); multi-label: 1 - min over classes of abs(2q - 1). Scheffer et al. 2001; Brinker 2006."""
    return _by_chunks(probabilities, "margin", multi_label)


def mean_margin(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """As ``margin`` for single-label; multi-label: mean over classes of 1 - abs(2q - 1)."""
    return _by_chunks(probabilities, "mean_margin", multi_label)


def entropy(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Shannon entropy in nats (n,), 0 log 0 = 0; multi-label: mean over classes of the binary entropies."""
    return _by_chunks(probabilities, "entropy", multi_label)


def rarity(probabilities: np.ndarray, labels: np.ndarray, power: float) -> np.ndarray:
    """Expected (n_c + 1)^-power of a record's class under its prediction, (n,): near 1 where it may be of a class
    without a label, small where it is sure to be of one with many. labels: those given so far, class numbers."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    return np.asarray(probabilities @ ((counts + 1.0) ** -power).astype(np.float32), dtype=np.float64)


def _plogp(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))


def _two_largest_gap(p: np.ndarray) -> np.ndarray:
    if p.shape[1] < 2:
        return p[:, 0]
    top = np.partition(p, p.shape[1] - 2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


_MEASURES = {
    ("least_confidence", False): lambda p: 1.0 - p.max(axis=1),
    ("least_confidence", True): lambda q: np.minimum(q, 1.0 - q).mean(axis=1),
    ("margin", False): lambda p: 1.0 - _two_largest_gap(p),
    ("margin", True): lambda q: 1.0 - np.abs(2.0 * q - 1.0).min(axis=1),
    ("mean_margin", False): lambda p: 1.0 - _two_largest_gap(p),
    ("mean_margin", True): lambda q: 1.0 - np.abs(2.0 * q - 1.0).mean(axis=1),
    ("entropy", False): lambda p: -_plogp(p).sum(axis=1),
    ("entropy", True): lambda q: -(_plogp(q) + _plogp(1.0 - q)).mean(axis=1),
}
