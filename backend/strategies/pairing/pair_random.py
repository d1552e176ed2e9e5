"""Random items of one modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.pairing.base import Open, PairStrategy, Picks, drawn_modality
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class PairRandom(PairStrategy):
    """A modality is drawn, by how many items it has, and items of it uniformly; the yardstick of all others.

    Every item is equally likely. That a batch keeps to one modality is ours: so no question is asked from both ends.

    Source: simple random sampling, the baseline of Zhang and Zhu, 2025 (unaligned.md section 5).
    """

    name: ClassVar[str] = "pair_random"
    title: ClassVar[str] = "Random items to pair"
    paper: ClassVar[str] = "simple random sampling (baseline)"
    complexity: ClassVar[str] = "O(n) time and memory, and one pass for the candidates"

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        modality = drawn_modality(open_, rng)
        items = rng.permutation(np.flatnonzero(open_[modality]))[:count]
        return Picks(modality, items, ["random"] * len(items))
