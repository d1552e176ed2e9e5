"""Core-set of the worse covered modality, without margins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.pairing.base import Open, Picks
from backend.strategies.pairing.covering import CoverStrategy
from backend.strategies.pairing.pair_random import PairRandom
from backend.strategies.pairing.pairs import Pairs
from backend.strategies.pairing.three_step import cover_figures


@dataclass(frozen=True)
class PairCoreSet(CoverStrategy):
    """Steps 1 and 2 of ``three_step`` with B_C = B: the B items farthest from everything paired, one after the other.

    With ``directions`` "image" or "text" it is the core-set in that modality alone, else the modality-aware one.
    parts: radii, coreset, cover as in ``three_step``.

    Source: Sener and Savarese, ICLR 2018, on pools to be paired as in Zhang and Zhu, 2025, arXiv 2510.03247
    (unaligned.md section 5).
    """

    name: ClassVar[str] = "pair_coreset"
    title: ClassVar[str] = "Core-set of the worse covered modality"
    paper: ClassVar[str] = "Sener and Savarese, ICLR 2018; baseline of Zhang and Zhu, arXiv 2510.03247"
    complexity: ClassVar[str] = "O(n (p + B) D) time as matrix products, p pairs, less where bounds hold; O(n) memory"

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        if self.cold_start == "random" and not len(pairs.known):
            return PairRandom(self.directions)._pick(pairs, open_, count, rng, candidates)
        core = self.core(pairs, open_, count, rng)
        figures = cover_figures(core, np.arange(len(core.rows)))
        parts = {"radii": core.radii, "coreset": core.rows, "cover": core.cover}
        return Picks(core.modality, core.rows, ["uncovered"] * len(core.rows), figures, parts)
