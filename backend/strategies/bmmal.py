"""BMMAL: BADGE whose blocks are scaled down where one modality dominates the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.errors import PoolInvalid
from backend.strategies.badge import pick_gradients
from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.outer_rows import GradientRows
from backend.strategies.kernels.shapley import (
    coalitions,
    contributions,
    dominance_degree,
    modulation_weights,
    shapley_values,
)
from backend.strategies.kernels.sum_fusion import as_logits, sum_fused
from backend.strategies.pool import Pool, rows_of

CHUNK_ROWS = 65_536
Values = dict[frozenset[str], np.ndarray]


def coalition_value(
    probabilities: np.ndarray, full: np.ndarray, *, multi_label: bool, classes: np.ndarray | None = None
) -> np.ndarray:
    """v(S) (n,) float64: probability under S of the label predicted from all modalities.

    Multi-label: mean over the classes predicted positive, or the largest one if none is (bmmal.md 5.2).
    classes: (n,) the class to value instead, single-label; with the true ones on held-out records, the mean of the
    contributions is the authors' metric "Contribution" and the mean Shapley value their "Delta".
    """
    out = np.empty(len(full))
    for begin in range(0, len(full), CHUNK_ROWS):
        part = slice(begin, begin + CHUNK_ROWS)
        whole, under = full[part], probabilities[part]
        if multi_label:
            under = np.asarray(under, dtype=np.float64)
            counted = whole >= 0.5
            counted[np.arange(len(whole)), whole.argmax(axis=1)] |= ~counted.any(axis=1)
            out[part] = (under * counted).sum(axis=1) / counted.sum(axis=1)
        else:
            valued = whole.argmax(axis=1) if classes is None else classes[part]
            out[part] = under[np.arange(len(whole)), valued]
    return out


@dataclass(frozen=True)
class Bmmal(LabelledStrategy):
    """BADGE on features scaled by w_m = 1 - (max contribution - contribution of m), per record and modality.

    Contributions are absolute Shapley values of the modalities for the predicted probability, normalised to sum
    to 1; they are reported with each pick. Records that one modality dominates get a shorter gradient and are picked
    less. With one label predicted for certain, or every modality absent, all weights are 1.

    fusion: "concat" plays the game on the fused head; "sum" on the mean of the logits of the modalities' own heads,
    whose gradient is the same r (x) z_m up to a constant. compat: with several labels a record, positive residuals
    count twice, as in the authors' code. Their other slips are not to be had: 0/0 contributions (undefined memory
    there), overlapping blocks from the third modality on, the pool cut into parts by GPU memory, the tail of it
    dropped (bmmal.md sections 2.4 and 2.5).

    Ours: with one label a record the head of this project has no bias, so v(no modality) is 1 / (classes seen) and
    not softmax(b) of the predicted class, as in the authors' network. All replays stand on that head; docs/results.md
    says what a bias changed in a short one.

    Source: Shen et al., Towards Balanced Active Learning for Multimodal Classification, ACM MM 2023,
    arXiv 2306.08306, eq. 5 and 13.
    """

    name: ClassVar[str] = "bmmal"
    title: ClassVar[str] = "BMMAL"
    paper: ClassVar[str] = "Shen et al., ACM MM 2023, arXiv 2306.08306"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "two_modalities"})
    complexity: ClassVar[str] = "O(n (2^M C + D) + k^2 (C + D)) time, O(n (C + M)) memory"

    fusion: str = option("concat", "head the contributions are taken from", choices=("concat", "sum"))
    compat: bool = option(False, "several labels: positive residuals count twice, as the authors' code")

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        names = pool.modalities
        fused, values = sum_game(pool) if self.fusion == "sum" else concat_game(pool)
        share = contributions(shapley_values(values, names))
        weights = modulation_weights(share)
        features: Mapping[str, np.ndarray] = {name: pool.features[name] for name in names}
        rows = GradientRows(fused, features, weights, pool.multi_label, self.compat)
        picks, utilities, parts = pick_gradients(rows, pool, count, rng)
        parts["dominance"] = dominance_degree(share[picks])
        for column, name in enumerate(names):
            parts[f"contribution_{name}"] = share[picks, column]
        return picks, utilities, parts


def concat_game(pool: Pool) -> tuple[np.ndarray, Values]:
    """(fused probabilities (n, C), coalition -> value (n,)) of the head on the concatenated features."""
    full = pool.require_probabilities()
    # Looked for once and not for each coalition.
    predicted = None if pool.multi_label else full.argmax(axis=1)
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
        values[coalition] = coalition_value(under, full, multi_label=pool.multi_label, classes=predicted)
    return full, values


def sum_game(pool: Pool) -> tuple[np.ndarray, Values]:
    """The same of the mean of the logits of the modalities' own heads; chunked."""
    head, multi_label = pool.require_head(), pool.multi_label
    nothing = {m: np.zeros((1, matrix.shape[1]), np.float32) for m, matrix in pool.features.items()}
    at_zero = {
        m: as_logits(head.unimodal_probabilities({m: nothing[m]}, m), multi_label=multi_label)[0]
        for m in pool.modalities
    }
    fused = np.empty((len(pool), pool.n_classes), dtype=np.float32)
    values: Values = {coalition: np.empty(len(pool)) for coalition in coalitions(pool.modalities)}
    for begin in range(0, len(pool), CHUNK_ROWS):
        rows = np.arange(begin, min(begin + CHUNK_ROWS, len(pool)))
        logits = {
            m: as_logits(rows_of(pool.unimodal_probabilities, m, rows), multi_label=multi_label)
            for m in pool.modalities
        }
        full = sum_fused(logits, at_zero, pool.modalities, multi_label=multi_label)
        fused[rows] = full
        for coalition, value in values.items():
            under = sum_fused(logits, at_zero, coalition, multi_label=multi_label)
            value[rows] = coalition_value(under, full, multi_label=multi_label)
    return fused, values
