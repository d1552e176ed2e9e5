"""Uniform random sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import Strategy
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class RandomSampling(Strategy):
    """Every unlabelled record is equally likely; the yardstick of all others.

    Source: simple random sampling, as in the baselines of Shen et al., BMMAL, ACM MM 2023.
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random"
    paper: ClassVar[str] = "simple random sampling (baseline)"
    complexity: ClassVar[str] = "O(n) time and memory"
    reason: ClassVar[str] = "random"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        keys = rng.random(len(pool))
        free = pool.unlabelled
        return free[np.argsort(-keys[free], kind="stable")[:count]], keys, {}
