"""BMMAL: BADGE whose blocks are scaled down where one modality dominates the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.errors import PoolInvalid
from backend.strategies.badge import pick_gradients
from backend.strategies.base import LabelledStrategy
from backend.strategies.kernels.outer_rows import GradientRows
from backend.strategies.kernels.shapley import (
    coalitions,
    contributions,
    dominance_degree,
    modulation_weights,
    shapley_values,
)
from backend.strategies.pool import Pool

CHUNK_ROWS = 65_536


def coalition_value(probabilities: np.ndarray, full: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """v(S) (n,) float64: probability under S of the label predicted from all modalities.

    Multi-label: mean over the classes predicted positive, or the largest one if none is (bmmal.md 5.2).
    """
    out = np.empty(len(full))
    for begin in range(0, len(full), CHUNK_ROWS):
        part = slice(begin, begin + CHUNK_ROWS)
        whole, under = full[part], np.asarray(probabilities[part], dtype=np.float64)
        if multi_label:
            counted = whole >= 0.5
            counted[np.arange(len(whole)), whole.argmax(axis=1)] |= ~counted.any(axis=1)
            out[part] = (under * counted).sum(axis=1) / counted.sum(axis=1)
        else:
            out[part] = under[np.arange(len(whole)), whole.argmax(axis=1)]
    return out


@dataclass(frozen=True)
class Bmmal(LabelledStrategy):
    """BADGE on features scaled by w_m = 1 - (max contribution - contribution of m), per record and modality.

    Contributions are absolute Shapley values of the modalities for the predicted probability, normalised to sum
    to 1. Records that one modality dominates get a shorter gradient and are picked less. With one label predicted
    for certain, or every modality absent, all weights are 1.

    Source: Shen et al., Towards Balanced Active Learning for Multimodal Classification, ACM MM 2023,
    arXiv 2306.08306, eq. 5 and 13.
    """

    name: ClassVar[str] = "bmmal"
    title: ClassVar[str] = "BMMAL"
    paper: ClassVar[str] = "Shen et al., ACM MM 2023, arXiv 2306.08306"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "two_modalities"})
    complexity: ClassVar[str] = "O(n (2^M C + D) + k^2 (C + D)) time, O(n (C + M)) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        names = pool.modalities
        share = contributions(shapley_values(self._values(pool), names))
        weights = modulation_weights(share)
        features: Mapping[str, np.ndarray] = {name: pool.features[name] for name in names}
        rows = GradientRows(pool.require_probabilities(), features, weights, pool.multi_label)
        picks, utilities, parts = pick_gradients(rows, pool, count, rng)
        parts["dominance"] = dominance_degree(share[picks])
        for column, name in enumerate(names):
            parts[f"contribution_{name}"] = share[picks, column]
        return picks, utilities, parts

    def _values(self, pool: Pool) -> dict[frozenset[str], np.ndarray]:
        full = pool.require_probabilities()
        values = {}
        for coalition in coalitions(pool.modalities):
            if coalition == frozenset(pool.modalities):
                under = full
            elif coalition in pool.coalition_probabilities:
                under = pool.coalition_probabilities[coalition]
            else:
                raise PoolInvalid(
                    f"coalition_probabilities lacks {sorted(coalition)}; 'bmmal' needs every subset of the modalities"
                )
            values[coalition] = coalition_value(under, full, multi_label=pool.multi_label)
        return values
