"""Temperature from held-out labels, for strategies that calibrate on their own."""

from __future__ import annotations

import numpy as np

CHUNK_ROWS = 65_536
HELD_OUT = 0.2
BINS = 15
TEMPERATURES = np.geomspace(0.05, 20.0, 41)
# 1 / (2 x the weight of a squared weight): the head's own strength (label_efficiency.md, recipe step 3).
STRENGTH = 30.0
# Fewer held-out labels say nothing about calibration.
FEWEST = 4


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / T) from softmax(logits): p^(1/T), normalised; (n, C) float32, the array itself at T = 1."""
    if temperature == 1.0:
        return probabilities
    out = np.empty(probabilities.shape, dtype=np.float32)
    for begin in range(0, len(out), CHUNK_ROWS):
        part = np.asarray(probabilities[begin : begin + CHUNK_ROWS], dtype=np.float64)
        part = (part / part.max(axis=1, keepdims=True)) ** (1.0 / temperature)
        out[begin : begin + CHUNK_ROWS] = part / part.sum(axis=1, keepdims=True)
    return out


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: mean over 15 equal bins of |accuracy - confidence|, weighted by their rows."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(place, confidence, BINS) - np.bincount(place, right, BINS)
    return float(np.abs(gap).sum() / len(truth))


def held_out_temperature(vectors: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Temperature (0.05 to 20) with the least calibration error on a held-out fifth; nearest 1 on ties.

    vectors: (l, D) of the labelled records; labels: (l,) class numbers. A multinomial logistic model is fitted on
    the other four fifths; held-out rows of classes that it has not seen do not count. 1 where there is too little.
    """
    order = rng.permutation(len(labels))
    held = order[: int(HELD_OUT * len(order))]
    train = order[len(held) :]
    classes = np.unique(labels[train])
    held = held[np.isin(labels[held], classes)]
    if len(held) < FEWEST or len(classes) < 2:
        return 1.0
    logits = _held_out_logits(vectors, labels, train, held)
    truth = np.searchsorted(classes, labels[held])
    errors = []
    for temperature in TEMPERATURES:
        scaled = logits / temperature
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        errors.append(calibration_error(scaled / scaled.sum(axis=1, keepdims=True), truth))
    best = np.flatnonzero(np.array(errors) <= min(errors) + 1e-12)
    return float(TEMPERATURES[best[np.argmin(np.abs(np.log(TEMPERATURES[best])))]])


def _held_out_logits(vectors: np.ndarray, labels: np.ndarray, train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(held, classes) logits in ascending order of the classes in ``train``."""
    from sklearn.linear_model import LogisticRegression

    # The weights lie in the span of the training rows: in its coordinates the problem has at most that many numbers.
    rows = vectors[train].astype(np.float64)
    basis = np.linalg.qr(rows.T)[0]
    model = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-4).fit(rows @ basis, labels[train])
    logits = np.asarray(model.decision_function(vectors[held].astype(np.float64) @ basis))
    return np.stack([-0.5 * logits, 0.5 * logits], axis=1) if logits.ndim == 1 else logits
