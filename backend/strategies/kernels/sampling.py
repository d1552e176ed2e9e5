"""Samples that stand for a pool."""

from __future__ import annotations

import numpy as np


def priority_sample(
    rows: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` rows, ascending, and the weights with which sums over them are unbiased for sums over all rows.

    Priority sampling: the largest weight / uniform stay, each weighing max(its weight, the first key left out).
    Source: Duffield, Lund and Thorup, J. ACM 54(6), 2007.
    """
    if len(rows) <= count:
        return rows, weights
    keys = weights / (1.0 - rng.random(len(rows)))
    order = np.argpartition(-keys, count)
    kept = np.sort(order[:count])
    return rows[kept], np.maximum(weights[kept], keys[order[count]])


def uniform_sample(rows: np.ndarray, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows, what each stands for): all with weight 1, or ``most`` of them, ascending, with weight len / most."""
    if len(rows) <= most:
        return rows, np.ones(len(rows))
    return np.sort(rng.choice(rows, most, replace=False)), np.full(most, len(rows) / most)
