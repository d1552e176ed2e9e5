"""Regularised logistic heads, solved to the optimum in the span of their own training rows.

The penalty ``|W|^2 / 2`` keeps every row of W inside the span of the training rows, so n rows of D numbers are
first written in min(n, D) orthonormal coordinates (exact, not an approximation). In those coordinates the Hessian
is nearly diagonal and a diagonal rescaling makes L-BFGS converge in tens of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, qr
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

# Times 1 / (number of outputs): a guess of the mean curvature p(1 - p) of a fitted row. It only rescales the search;
# the optimum is the same.
TYPICAL_CURVATURE = 0.1
# Largest gradient entry, in rescaled coordinates and per unit of inverse regularization, that counts as zero.
GRADIENT_TOLERANCE = 1e-6
MAX_STEPS = 3000
# Below this many multiplications a step, more than one BLAS thread costs more than it gives on a busy machine.
SINGLE_THREAD_BELOW = 100_000_000


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
        with threadpool_limits(1 if n * width * min(n, width) < 10 * SINGLE_THREAD_BELOW else None):
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


def _softmax_loss(targets: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    index = np.arange(len(targets))

    def loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        top = logits.max(axis=1, keepdims=True)
        residual = np.exp(logits - top)
        total = residual.sum(axis=1, keepdims=True)
        value = float((np.log(total[:, 0]) + top[:, 0] - logits[index, targets]).sum())
        residual /= total
        residual[index, targets] -= 1.0
        return value, residual

    return loss


def _sigmoid_loss(targets: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    wanted = targets.astype(np.float64)

    def loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        value = float((np.logaddexp(0.0, logits) - wanted * logits).sum())
        return value, expit(logits) - wanted

    return loss


def fit_weights(
    span: RowSpan,
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
    data_loss = _sigmoid_loss(targets) if multi_label else _softmax_loss(targets)
    strength = inverse_regularization
    scale = 1.0 / np.sqrt(1.0 + strength * TYPICAL_CURVATURE / n_outputs * span.energy)
    scaled_rows = rows * scale
    shape = (n_outputs, rows.shape[1])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free = flat.reshape(shape)
        weights = free * scale
        value, residual = data_loss(scaled_rows @ free.T)
        gradient = weights * scale + strength * (residual.T @ scaled_rows)
        return 0.5 * float(np.vdot(weights, weights)) + strength * value, gradient.ravel()

    first = np.zeros(shape) if start is None else start / scale
    with threadpool_limits(1 if rows.size * n_outputs < SINGLE_THREAD_BELOW else None):
        result = minimize(
            objective,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MAX_STEPS,
                "maxfun": 2 * MAX_STEPS,
                "maxcor": 5,  # in these coordinates a longer memory saves no steps and costs time
                "gtol": GRADIENT_TOLERANCE * strength,
                "ftol": 1e-15,
            },
        )
    return np.asarray(result.x).reshape(shape) * scale


def cross_entropy(logits: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """Summed cross-entropy of logits against class indices, or of independent outputs against 0/1."""
    if multi_label:
        return float((np.logaddexp(0.0, logits) - targets * logits).sum())
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]).sum())
