"""Largest entropy sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, top_scored
from backend.strategies.kernels import uncertainty
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class Entropy(LabelledStrategy):
    """-sum p log p, with 0 log 0 = 0. Multi-label: mean over classes of the binary entropies.

    Source: Settles, Active learning literature survey, 2009, section 3.1; multi-label form as in the BMMAL code.
    """

    name: ClassVar[str] = "entropy"
    title: ClassVar[str] = "Largest entropy"
    paper: ClassVar[str] = "Shannon entropy; Settles, 2009, section 3.1"
    complexity: ClassVar[str] = "O(n C) time, O(n) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        scores = uncertainty.entropy(pool.require_probabilities(), multi_label=pool.multi_label)
        return top_scored(scores, pool, count, rng)
