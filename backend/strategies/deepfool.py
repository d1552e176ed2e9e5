"""DeepFool: the records nearest a decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option, top_scored
from backend.strategies.kernels.linear_scores import (
    LinearScores,
    boundary_distances,
    row_chunks,
    weight_gaps,
)
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class DeepFool(LabelledStrategy):
    """Smallest change of the features that turns the prediction: distance to the nearest boundary of the head.

    For a linear head the boundary between the predicted class and class j is a plane, at
    |l_j - l_top| / |W_j - W_top|: margin sampling in the space of the features instead of probabilities. The classes
    of rank 2 to ``ranks`` are looked at. Multi-label: the nearest of the planes q_c = 1/2, |l_c| / |W_c| (ours).
    ``compat`` looks at the last of these ranks only, as the BMMAL authors' code does.

    Source: Ducoffe and Precioso, Adversarial Active Learning, 2018, arXiv 1802.09841; Moosavi-Dezfooli et al.,
    CVPR 2016; bmmal.md section 3.
    """

    name: ClassVar[str] = "deepfool"
    title: ClassVar[str] = "DeepFool"
    paper: ClassVar[str] = "Ducoffe and Precioso, 2018, arXiv 1802.09841"
    complexity: ClassVar[str] = "O(n C D + C^2 D) time, O(n + C^2) memory"

    ranks: int = option(10, "classes looked at, by falling logit, the predicted one included", low=2, high=100_000)
    compat: bool = option(False, "the class of the last rank only, as the BMMAL authors' code")

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        head = pool.require_head()
        scores = LinearScores.of(head.fused, head.fused_bias, head.seen, multi_label=pool.multi_label)
        gaps = weight_gaps(scores.weights, multi_label=pool.multi_label)
        squared = np.empty(len(pool))
        view = UnitView(pool.features)
        for part in row_chunks(len(pool)):
            squared[part] = boundary_distances(
                scores.logits(view.rows(part)),
                gaps,
                multi_label=pool.multi_label,
                ranks=self.ranks,
                compat=self.compat,
            )
        # Without any boundary (one class seen) all records are as far, and ties are drawn.
        farthest = squared[np.isfinite(squared)].max(initial=0.0)
        return top_scored(-np.minimum(squared, 2.0 * farthest + 1.0), pool, count, rng)
