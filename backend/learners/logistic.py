"""Regularised logistic heads, solved to the optimum in the span of their own training rows.

The penalty ``|W|^2 / 2`` keeps every row of W inside the span of the training rows, so n rows of D numbers are
first written in min(n, D) orthonormal coordinates (exact, not an approximation). In those coordinates the Hessian
is nearly diagonal, and after a diagonal rescaling Newton's steps need few conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import eigh, qr
from scipy.special import expit, logsumexp

from backend.blas_threads import one_thread_if
from backend.learners.newton import minimise

# Times 1 / (number of outputs): a guess of the mean curvature p(1 - p) of a fitted row. It only rescales the search;
# the optimum is the same.
TYPICAL_CURVATURE = 0.1
# Largest gradient entry, in rescaled coordinates and per unit of inverse regularization, that counts as zero.
GRADIENT_TOLERANCE = 1e-6
# Below this many multiplications a step, more than one BLAS thread costs more than it gives on a busy machine.
SINGLE_THREAD_BELOW = 100_000_000


class Span(Protocol):
    """Orthonormal coordinates (n, q) of training rows, and the sum of squares (q,) of each coordinate."""

    @property
    def coordinates(self) -> np.ndarray: ...

    @property
    def energy(self) -> np.ndarray: ...


@dataclass(frozen=True)
class RowSpan:
    """Orthonormal coordinates of the span of the training rows.

    basis: (D, q) with orthonormal columns, q = min(n, D); coordinates: (n, q) = rows @ basis;
    energy: (q,) sum of squares of each coordinate.
    """

    basis: np.ndarray
    coordinates: np.ndarray
    energy: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> RowSpan:
        """Principal coordinates of ``rows`` (n, D), float64."""
        n, width = rows.shape
        with one_thread_if(n * width * min(n, width) < 10 * SINGLE_THREAD_BELOW):
            return cls._of(rows)

    @classmethod
    def _of(cls, rows: np.ndarray) -> RowSpan:
        n, width = rows.shape
        if n < width:
            # QR first: the Gram matrix alone would lose orthogonality on near-duplicate rows.
            outer, triangle = qr(rows.T, mode="economic", check_finite=False)
            energy, turn = eigh(triangle @ triangle.T, check_finite=False)
            basis = outer @ turn
            coordinates = triangle.T @ turn
        else:
            energy, basis = eigh(rows.T @ rows, check_finite=False)
            coordinates = rows @ basis
        return cls(basis, coordinates, np.maximum(energy, 0.0))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in the dtype of the logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


class _SoftmaxLoss:
    """Cross-entropy of a softmax against class indices."""

    def __init__(self, targets: np.ndarray) -> None:
        self._targets, self._index = targets, np.arange(len(targets))

    def evaluate(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        top = logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits - top)
        total = probabilities.sum(axis=1, keepdims=True)
        value = float((np.log(total[:, 0]) + top[:, 0] - logits[self._index, self._targets]).sum())
        probabilities /= total
        residual = probabilities.copy()
        residual[self._index, self._targets] -= 1.0
        return value, residual, probabilities

    def curvature(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def multiply(change: np.ndarray) -> np.ndarray:
            change = change * probabilities
            change -= probabilities * change.sum(axis=1, keepdims=True)
            return change

        return multiply


class _SigmoidLoss:
    """Independent binary cross-entropies against 0/1."""

    def __init__(self, targets: np.ndarray) -> None:
        self._wanted = targets.astype(np.float64)

    def evaluate(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value = float((np.logaddexp(0.0, logits) - self._wanted * logits).sum())
        probabilities = expit(logits)
        return value, probabilities - self._wanted, probabilities

    def curvature(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        spread = probabilities * (1.0 - probabilities)
        return lambda change: change * spread


def fit_weights(
    span: Span,
    members: np.ndarray,
    targets: np.ndarray,
    n_outputs: int,
    *,
    inverse_regularization: float,
    multi_label: bool,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Weights V (n_outputs, q) in span coordinates that minimise |V|^2 / 2 + inverse_regularization * sum of CE.

    members: indices of the training rows used; targets: class index (len(members),) for softmax cross-entropy, or
    0/1 (len(members), n_outputs) for independent binary cross-entropies; start: where the search begins.
    """
    rows = span.coordinates[members]
    strength = inverse_regularization
    scale = 1.0 / np.sqrt(1.0 + strength * TYPICAL_CURVATURE / n_outputs * span.energy)
    with one_thread_if(rows.size * n_outputs < SINGLE_THREAD_BELOW):
        scaled = minimise(
            rows * scale,
            scale**2,
            strength,
            _SigmoidLoss(targets) if multi_label else _SoftmaxLoss(targets),
            np.zeros((n_outputs, rows.shape[1])) if start is None else start / scale,
            GRADIENT_TOLERANCE * strength,
        )
    return scaled * scale


def cross_entropy(logits: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """Summed cross-entropy of logits against class indices, or of independent outputs against 0/1."""
    if multi_label:
        return float((np.logaddexp(0.0, logits) - targets * logits).sum())
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]).sum())
