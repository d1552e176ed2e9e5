"""BADGE: diverse, uncertain batches by k-means++ on gradient embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy
from backend.strategies.explain import percentile
from backend.strategies.kernels.kmeanspp import nearest_pick_distances, rejection_seeding
from backend.strategies.kernels.outer_rows import GradientRows
from backend.strategies.pool import Pool


def pick_gradients(
    rows: GradientRows, pool: Pool, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """k-means++ on gradient rows among the unlabelled; utilities are the squared distances left to the batch."""
    seeding = rejection_seeding(rows, count, rng, candidates=~pool.labelled)
    norms = percentile(seeding.norms[seeding.picks], seeding.norms[pool.unlabelled])
    return seeding.picks, nearest_pick_distances(rows, seeding), {"gradient_norm": norms}


@dataclass(frozen=True)
class Badge(LabelledStrategy):
    """k-means++ seeding on the last-layer gradient at the predicted label, r (x) z with r = p - onehot.

    Long gradients are uncertain records, distances between them keep the batch diverse. The first pick has the
    longest gradient. Multi-label: r = q - [q >= 1/2]. Labelled rows are no centres.

    Source: Ash et al., BADGE, ICLR 2020, algorithm 1; factored distances and exact rejection sampling, see
    ``kernels.outer_rows`` and ``kernels.kmeanspp``.
    """

    name: ClassVar[str] = "badge"
    title: ClassVar[str] = "BADGE"
    paper: ClassVar[str] = "Ash et al., ICLR 2020, arXiv 1906.03671"
    complexity: ClassVar[str] = "O(n (C + D) + k^2 (C + D)) time, O(n) memory beside the inputs"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        features = {name: pool.features[name] for name in pool.modalities}
        rows = GradientRows(pool.require_probabilities(), features, multi_label=pool.multi_label)
        return pick_gradients(rows, pool, count, rng)
