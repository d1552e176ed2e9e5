"""How far a record must be mixed with the class anchors until a linear head changes its mind (ALFA-Mix)."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.linear_scores import LinearScores, softmax_rows


def class_anchors(joined: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(C, D) float64 mean of the labelled rows of each class; classes without any: the mean of all labelled rows."""
    anchors = np.tile(joined.mean(axis=0, dtype=np.float64), (n_classes, 1))
    for label in np.unique(labels):
        anchors[label] = joined[labels == label].mean(axis=0, dtype=np.float64)
    return anchors


def mixing_steps(joined: np.ndarray, scores: LinearScores, anchors: np.ndarray) -> np.ndarray:
    """Smallest epsilon (b,) float64 with which mixing with some anchor changes the predicted class; inf if none does.

    ALFA-Mix mixes z' = z + alpha (z* - z) with, per coordinate, alpha = epsilon |z* - z| g / (|g| (z* - z)), g the
    gradient of the cross-entropy at the predicted class. The coordinates of z* - z cancel: z' = z + epsilon
    |z* - z| g / |g|, one direction for all anchors, of which the farthest goes farthest. With a linear head every
    logit is linear along it, so the first crossing has a closed form and g never needs its D coordinates:
    W g = (W W^T) r, r = p - onehot. Source: Parvaneh et al., CVPR 2022, eq. 5 and algorithm 1; the closed form over
    the linear head is ours, and is checked against the mixing itself in the tests.
    """
    logits = scores.logits(joined)
    rows = np.arange(len(logits))
    predicted = logits.argmax(axis=1)
    residual = softmax_rows(logits)
    residual[rows, predicted] -= 1.0
    residual = residual.astype(np.float64)
    change = residual @ (scores.weights @ scores.weights.T)
    length = np.sqrt(np.maximum(np.einsum("ij,ij->i", residual, change), 0.0))
    gains = change - change[rows, predicted][:, None]
    behind = (logits[rows, predicted][:, None] - logits).astype(np.float64)
    behind[rows, predicted] = np.inf
    crossing = np.where(gains > 0, behind / np.where(gains > 0, gains, 1.0), np.inf).min(axis=1)
    farthest = _farthest(joined, anchors)
    reachable = np.isfinite(crossing) & (length > 0) & (farthest > 0)
    out = np.full(len(logits), np.inf)
    out[reachable] = crossing[reachable] * length[reachable] / farthest[reachable]
    return out


def _farthest(joined: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    partial = joined @ (-2.0 * anchors.T.astype(joined.dtype))
    partial += np.einsum("ij,ij->i", anchors, anchors).astype(joined.dtype)
    own = np.einsum("ij,ij->i", joined, joined)
    return np.sqrt(np.maximum(partial.max(axis=1) + own, 0.0).astype(np.float64))
