"""Formulas of ASCMR as a reader noted them, written down whole; the strategy computes them in pieces.

Source: ascmr.md sections 2.4 and 2.5 ([NOTE]).
"""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.gaussian_match import CERTAIN, Gaussians, log_match


def floored(gaussians: Gaussians, least: float) -> Gaussians:
    """With no variance below ``least``: zeros have no logarithm."""
    return Gaussians(gaussians.mean, np.maximum(gaussians.variance, least))


def log_mismatch(log_p: np.ndarray) -> np.ndarray:
    """ln(1 - p) without losing small p or 1 - p."""
    return np.asarray(np.log(-np.expm1(np.minimum(log_p, CERTAIN))))


def matching_losses(log_p: np.ndarray) -> np.ndarray:
    """L_CL of each pair of a batch, (B, B): -ln p on the diagonal, -ln(1 - p) beside it (section 2.4)."""
    return np.asarray(np.where(np.eye(len(log_p), dtype=bool), -log_p, -log_mismatch(log_p)))


def divergence_from_standard(gaussians: Gaussians) -> np.ndarray:
    """KL(N(mu, Sigma) || N(0, I)) = 1/2 sum (Sigma + mu^2 - 1 - ln Sigma), (n,) nats; variances positive."""
    mean, variance = gaussians.mean, gaussians.variance
    return np.asarray(0.5 * (variance + mean**2 - 1.0 - np.log(variance)).sum(axis=1))


def informativeness(
    image: Gaussians, text: Gaussians, *, alpha: float, floor: float, temper: float = 1.0
) -> np.ndarray:
    """alpha (|Sigma_v| + |Sigma_t|) + (1 - p^(1/temper)), (n,): the literal score of section 2.5, larger = sooner.

    floor: least variance inside logarithms; the lengths are those of the raw variances. With hundreds of coordinates
    and temper 1 the last term is 1 for every pair in floating point.
    """
    log_p = log_match(floored(image, floor), floored(text, floor))
    return np.asarray(alpha * (image.sizes() + text.sizes()) - np.expm1(log_p / temper))
