"""ALFA-Mix: spread over the records whose prediction changes when they are mixed a little with labelled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.linear_scores import LinearScores, row_chunks
from backend.strategies.kernels.mixing import class_anchors, mixing_steps
from backend.strategies.kernels.representatives import representatives, unit_length
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class AlfaMix(LabelledStrategy):
    """k-means, one cluster a pick, on the records whose class changes by mixing with a class anchor; central ones.

    Anchors are the means of each class's labelled records. A record is a candidate when mixing by at most epsilon
    (in units of 1 / sqrt(D), the closed-form mixing rate) changes its class for some anchor; epsilon grows by
    ``step`` up to 1 until there are more candidates than picks. Too few: uniform draws fill up. Clusters are those
    of the unit concatenated features. Above ``sample_rows`` candidates a uniform sample is clustered (ours).
    Reserve: by the epsilon needed.

    Source: Parvaneh et al., Active Learning by Feature Mixing, CVPR 2022, arXiv 2203.07034, algorithm 1 with the
    closed form of eq. 5, and its code's growing epsilon; see ``kernels.mixing`` for the closed form over the head.
    """

    name: ClassVar[str] = "alfamix"
    title: ClassVar[str] = "ALFA-Mix"
    paper: ClassVar[str] = "Parvaneh et al., CVPR 2022, arXiv 2203.07034"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "single_label"})
    complexity: ClassVar[str] = "O(n C (C + D) + rounds s k D) time, O(n + s D) memory, s = min(n, sample_rows)"

    step: float = option(0.2, "by how much epsilon grows, up to 1", low=0.001, high=1.0)
    sample_rows: int = option(20_000, "candidates clustered at most (4 a pick where that is more)", low=100)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        head = pool.require_head()
        scores = LinearScores.of(head.fused, head.fused_bias, head.seen, multi_label=False)
        view = UnitView(pool.features)
        known = np.flatnonzero(pool.labelled)
        anchors = class_anchors(view.rows(known), pool.labels[known], pool.n_classes)
        free = pool.unlabelled
        needed = np.full(len(pool), np.inf)
        for part in row_chunks(len(free)):
            needed[free[part]] = mixing_steps(view.rows(free[part]), scores, anchors)
        needed *= np.sqrt(anchors.shape[1])
        epsilon = self.step
        while epsilon < 1.0 - 1e-9 and (needed[free] < epsilon).sum() <= count:
            epsilon = min(epsilon + self.step, 1.0)
        changes = needed[free] < epsilon
        picks = representatives(
            free[changes],
            free[~changes],
            count,
            lambda rows: unit_length(view.rows(rows)),
            rng,
            sample_rows=self.sample_rows,
        )
        closeness = 1.0 / (1.0 + needed)
        return picks, closeness, {"mixing_closeness": closeness[picks]}
