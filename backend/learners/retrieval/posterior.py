"""Which class a row is about: a convex multinomial model whose targets may be shared between classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.blas_threads import one_thread_if
from backend.learners.logistic import SINGLE_THREAD_BELOW, RowSpan, softmax
from backend.learners.newton import minimise

GRADIENT_TOLERANCE = 1e-3
# Principal directions of the training rows that the model may use.
MOST_DIRECTIONS = 512


def shared_targets(labels: np.ndarray) -> np.ndarray:
    """(n, C + 1) rows that sum to 1: each label of a row gets an equal share, the last column rows without any."""
    count = labels.sum(axis=1, keepdims=True)
    return np.concatenate([labels / np.maximum(count, 1), count == 0], axis=1)


def leading_span(rows: np.ndarray) -> RowSpan:
    """Coordinates in the ``MOST_DIRECTIONS`` principal directions of ``rows`` (n, D)."""
    span = RowSpan.of(rows)
    kept = slice(-MOST_DIRECTIONS, None)
    return RowSpan(
        np.ascontiguousarray(span.basis[:, kept]), np.ascontiguousarray(span.coordinates[:, kept]), span.energy[kept]
    )


@dataclass(frozen=True)
class SharedCrossEntropy:
    """Softmax cross-entropy against target rows that sum to 1 (``newton.DataLoss``)."""

    targets: np.ndarray

    def evaluate(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(value, gradient by the logits, probabilities)."""
        top = logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits - top)
        total = probabilities.sum(axis=1, keepdims=True)
        value = float((np.log(total) + top).sum() - np.vdot(self.targets, logits))
        probabilities /= total
        return value, probabilities - self.targets, probabilities

    def curvature(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Product of the Hessian with a change of the logits."""

        def multiply(change: np.ndarray) -> np.ndarray:
            change = change * probabilities
            change -= probabilities * change.sum(axis=1, keepdims=True)
            return change

        return multiply


def posterior_weights(
    span: RowSpan, members: np.ndarray, targets: np.ndarray, strength: float, start: np.ndarray | None = None
) -> np.ndarray:
    """V (K, q) in span coordinates that minimises |V|^2 / 2 + strength * cross-entropy over the member rows.

    targets: (len(members), K) rows that sum to 1; outputs that no row has keep zero weights and must be masked by
    whoever reads them.
    """
    rows = span.coordinates[members]
    used = targets.any(axis=0)
    weights = np.zeros((targets.shape[1], rows.shape[1]))
    if used.sum() < 2:
        return weights
    scale = 1.0 / np.sqrt(1.0 + 0.1 * strength / used.sum() * span.energy)
    begin = np.zeros((int(used.sum()), rows.shape[1])) if start is None else start[used] / scale
    with one_thread_if(rows.size * int(used.sum()) < SINGLE_THREAD_BELOW):
        found = minimise(
            rows * scale,
            scale**2,
            strength,
            SharedCrossEntropy(targets[:, used]),
            begin,
            GRADIENT_TOLERANCE * strength,
        )
    weights[used] = found * scale
    return weights


def posterior(logits: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Softmax over the outputs that had a row, 0 for the others; with fewer than two such outputs nothing tells rows
    apart and all are 0. Overwrites ``logits``."""
    if used.sum() < 2:
        logits[...] = 0.0
        return logits
    logits[:, ~used] = -np.inf
    return softmax(logits)
