"""Smallest margin sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, top_scored
from backend.strategies.kernels import uncertainty
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class Margin(LabelledStrategy):
    """1 - (p1 - p2): the two best classes are closest. Multi-label: the single most undecided class decides.

    Source: Scheffer, Decomain and Wrobel, IDA 2001; multi-label form: Brinker, GfKl 2006.
    """

    name: ClassVar[str] = "margin"
    title: ClassVar[str] = "Smallest margin"
    paper: ClassVar[str] = "Scheffer et al., IDA 2001; multi-label: Brinker, GfKl 2006"
    complexity: ClassVar[str] = "O(n C) time, O(n) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        scores = uncertainty.margin(pool.require_probabilities(), multi_label=pool.multi_label)
        return top_scored(scores, pool, count, rng)
