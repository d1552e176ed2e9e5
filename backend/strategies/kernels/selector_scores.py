"""What the trained selector says of every pair of a pool, in one pass that keeps 2 d + 3 numbers a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.strategies.kernels.density import MatchKernel
from backend.strategies.kernels.gaussian_match import Gaussians, fused, log_match
from backend.strategies.kernels.probabilistic_selector import Selector

# Pairs from which the principal directions of the fused means are taken, evenly spaced over the pool.
DIRECTION_ROWS = 10_000


@dataclass(frozen=True)
class PoolScores:
    """image_size, text_size: |Sigma| of each Gaussian; log_match: ln p of a pair's own two; all (n,) float32.
    kernel: match kernel of the fused pairs in the reduced space, widened by the temper."""

    image_size: np.ndarray
    text_size: np.ndarray
    log_match: np.ndarray
    kernel: MatchKernel


def score_pool(
    selector: Selector, features: Mapping[str, np.ndarray], *, dimensions: int, temper: float
) -> PoolScores:
    """Scores of all rows, chunk by chunk: O(n (M D + D^2)) time, (2 d + 4) n float32 of memory beside the inputs.

    The fused pairs are kept in the ``dimensions`` principal directions V of their means, with variances
    diag(V^T diag(Sigma_z) V): the one approximation of the allocation (section 6), none where D <= ``dimensions``.
    """
    n, width = features["image"].shape
    directions, centre = _directions(selector, features, min(dimensions, width))
    kept = directions.shape[1]
    scores = np.empty((3, n), dtype=np.float32)
    means, halves = np.empty((kept, n), dtype=np.float32), np.empty((kept, n), dtype=np.float32)
    logs = np.empty(n, dtype=np.float32)
    for part, image, text in selector.stream(features):
        scores[:, part] = image.sizes(), text.sizes(), log_match(image, text)
        both = fused(image, text)
        block = MatchKernel.of(
            Gaussians((both.mean - centre) @ directions, both.variance @ directions**2).widened(temper)
        )
        means[:, part], halves[:, part], logs[part] = block.means, block.halves, block.logs
    return PoolScores(scores[0], scores[1], scores[2], MatchKernel(means, halves, logs))


def _directions(
    selector: Selector, features: Mapping[str, np.ndarray], dimensions: int
) -> tuple[np.ndarray, np.ndarray]:
    """((D, d) principal directions, (D,) mean) of fused means; all coordinates as they are where d = D."""
    n, width = features["image"].shape
    if dimensions == width:
        return np.eye(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    from scipy.linalg import eigh

    rows = np.unique(np.linspace(0, n - 1, min(n, DIRECTION_ROWS)).astype(np.int64))
    sample = {name: features[name][rows] for name in ("image", "text")}
    means = np.concatenate([fused(image, text).mean for _, image, text in selector.stream(sample)])
    centre = means.mean(axis=0)
    means -= centre
    _, directions = eigh(means.T @ means, subset_by_index=(width - dimensions, width - 1))
    return np.ascontiguousarray(directions, dtype=np.float32), centre
