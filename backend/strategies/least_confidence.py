"""Least confidence sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, top_scored
from backend.strategies.kernels import uncertainty
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class LeastConfidence(LabelledStrategy):
    """1 - max p: the record whose predicted class is least probable. Multi-label: mean over classes of min(q, 1 - q).

    Source: Lewis and Gale, A sequential algorithm for training text classifiers, SIGIR 1994.
    """

    name: ClassVar[str] = "least_confidence"
    title: ClassVar[str] = "Least confidence"
    paper: ClassVar[str] = "Lewis and Gale, SIGIR 1994"
    complexity: ClassVar[str] = "O(n C) time, O(n) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        scores = uncertainty.least_confidence(pool.require_probabilities(), multi_label=pool.multi_label)
        return top_scored(scores, pool, count, rng)
