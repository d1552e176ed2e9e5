"""Newton's method for penalised linear heads, its linear systems solved by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

MAX_STEPS = 200
MAX_INNER_STEPS = 250
# A step that lowers the objective by less than this part of it is at the limit of float64.
ROUNDING = 1e-14
SUFFICIENT_DECREASE = 1e-4


class DataLoss(Protocol):
    """A convex loss of logits (n, C), summed over rows."""

    def evaluate(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(value, gradient (n, C) by the logits, probabilities (n, C) from which curvature is made)."""
        ...

    def curvature(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Product of the loss's Hessian with a change of the logits (n, C), in the dtype of the probabilities."""
        ...


def minimise(
    rows: np.ndarray, penalty: np.ndarray, strength: float, loss: DataLoss, start: np.ndarray, tolerance: float
) -> np.ndarray:
    """V (C, q) that minimises sum(penalty * V^2) / 2 + strength * loss(rows @ V.T).

    Steps until the largest entry of the gradient is at most ``tolerance`` or nothing is left but rounding. The
    systems of each step are solved in float32 and no further than the step deserves; gradient, objective and
    iterate are float64, so that the optimum has full precision.

    rows: (n, q); penalty: (q,) > 0; start: (C, q).
    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.1 (line search Newton-CG).
    """
    rough_rows, rough_penalty = rows.astype(np.float32), penalty.astype(np.float32)

    def evaluate(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, residual, probabilities = loss.evaluate(rows @ weights.T)
        pulled = penalty * weights
        return (
            0.5 * float(np.vdot(pulled, weights)) + strength * value,
            pulled + strength * (residual.T @ rows),
            probabilities,
        )

    weights = start
    value, gradient, probabilities = evaluate(weights)
    for _ in range(MAX_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        curve = loss.curvature(probabilities.astype(np.float32))
        # Relative to the gradient, or float32 would underflow near the optimum.
        length = float(np.linalg.norm(gradient))
        direction = length * _conjugate_gradients(
            lambda d, curve=curve: rough_penalty * d + strength * (curve(rough_rows @ d.T).T @ rough_rows),  # type: ignore[misc]
            (-gradient / length).astype(np.float32),
            max(0.01, min(0.25, 0.1 * np.sqrt(length))),
        ).astype(np.float64)
        found = _line_search(evaluate, weights, direction, value, float(np.vdot(gradient, direction)))
        if found is None:
            break
        weights, (value, gradient, probabilities) = found
    return weights


def _conjugate_gradients(
    multiply: Callable[[np.ndarray], np.ndarray], target: np.ndarray, tolerance: float
) -> np.ndarray:
    """Approximate solution of multiply(x) = target, |target| = 1, to a residual of at most ``tolerance``."""
    solution = np.zeros_like(target)
    residual, direction = target.copy(), target.copy()
    squared = float(np.vdot(residual, residual))
    for _ in range(MAX_INNER_STEPS):
        product = multiply(direction)
        curvature = float(np.vdot(direction, product))
        if not curvature > 0:
            break
        step = np.float32(squared / curvature)
        solution += step * direction
        residual -= step * product
        before, squared = squared, float(np.vdot(residual, residual))
        if np.sqrt(squared) <= tolerance:
            break
        direction *= np.float32(squared / before)
        direction += residual
    return solution


def _line_search(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    weights: np.ndarray,
    direction: np.ndarray,
    value: float,
    slope: float,
) -> tuple[np.ndarray, tuple[float, np.ndarray, np.ndarray]] | None:
    """The first of the steps 1, 1/2, 1/4 ... that lowers the objective enough; None where none does."""
    size = 1.0
    while -size * slope > ROUNDING * abs(value):
        candidate = weights + size * direction
        after = evaluate(candidate)
        if after[0] <= value + SUFFICIENT_DECREASE * size * slope + ROUNDING * abs(value):
            return candidate, after
        size /= 2
    return None
