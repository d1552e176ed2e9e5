"""Modality contributions and modulation weights of BMMAL (Shen et al., ACM MM 2023, eq. 5 and 13).

Players are the modalities; the value v(S) of a coalition is the fused probability of the pseudo-label when every
modality outside S is a zero vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np


def coalitions(modalities: Sequence[str]) -> list[frozenset[str]]:
    """All 2^M subsets, the empty one first."""
    return [frozenset(c) for size in range(len(modalities) + 1) for c in combinations(modalities, size)]


def shapley_values(values: Mapping[frozenset[str], np.ndarray], modalities: Sequence[str]) -> np.ndarray:
    """Shapley value of each modality, (n, M) float64; values: coalition -> (n,), for all 2^M coalitions.

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! * (v(S + m) - v(S)); rows sum to v(all) - v(none).
    """
    total = len(modalities)
    n = len(values[frozenset(modalities)])
    phi = np.zeros((n, total))
    for column, modality in enumerate(modalities):
        others = [m for m in modalities if m != modality]
        for rest in coalitions(others):
            share = factorial(len(rest)) * factorial(total - len(rest) - 1) / factorial(total)
            gain = np.asarray(values[rest | {modality}], dtype=np.float64) - np.asarray(
                values[rest], dtype=np.float64
            )
            phi[:, column] += share * gain
    return phi


def contributions(phi: np.ndarray) -> np.ndarray:
    """|phi_m| / sum_j |phi_j| (n, M); rows with every phi = 0 get 1 / M (the authors' code leaves NaN there)."""
    size = np.abs(phi)
    total = size.sum(axis=1, keepdims=True)
    return np.where(total > 0, size / np.where(total > 0, total, 1.0), 1.0 / phi.shape[1])


def modulation_weights(contribution: np.ndarray) -> np.ndarray:
    """w_m = 1 - (max contribution - contribution of m), (n, M): 1 for the dominant modality (eq. 13)."""
    return 1.0 - (contribution.max(axis=1, keepdims=True) - contribution)


def dominance_degree(contribution: np.ndarray) -> np.ndarray:
    """rho = sum_m (max contribution - contribution of m), (n,), in [0, M - 1] (eq. 5)."""
    return (contribution.max(axis=1, keepdims=True) - contribution).sum(axis=1)
