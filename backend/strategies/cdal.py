"""CDAL: records whose predictions are unlike all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy
from backend.strategies.kernels.prediction_cover import PredictionCover
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class Cdal(LabelledStrategy):
    """Greedy k-center under the symmetric divergence (KL(p, q) + KL(q, p)) / 2 of predictions, labelled records
    being centres: k times the record farthest from the nearest one.

    Multi-label: the sum over classes of the divergences of yes-no predictions. Probabilities are kept away from 0
    and 1 by 1e-6 (ours). This is the core-set form, CDAL-CS; the paper's mixture over predicted classes of an image's
    regions has no counterpart where a record has one prediction, and its reinforced form is not here. Utilities are
    divergences to the nearest centre after the batch, or upper bounds.

    Source: Agarwal, Arora, Anand and Arora, Contextual Diversity for Active Learning, ECCV 2020, arXiv 2008.05723, as
    a baseline in ascmr.md section 3.
    """

    name: ClassVar[str] = "cdal"
    title: ClassVar[str] = "CDAL (contextual diversity)"
    paper: ClassVar[str] = "Agarwal et al., ECCV 2020, arXiv 2008.05723"
    complexity: ClassVar[str] = "O(n (L + k) C) time as matrix products, less where bounds hold; O(n C) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        cover = PredictionCover.of(pool.require_probabilities(), multi_label=pool.multi_label)
        found = cover.farthest_first(count, np.flatnonzero(pool.labelled), pool.unlabelled)
        return found.picks, found.bounds, {"divergence": found.radii}
