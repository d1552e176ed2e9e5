"""Smallest margins of a whole modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.explain import percentile
from backend.strategies.pairing.base import Open, Picks
from backend.strategies.pairing.comparing import Comparing
from backend.strategies.pairing.matching import MARGINS
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class PairMargin(Comparing):
    """Step 3 of ``three_step`` on all items of a modality drawn at random, lowest row on ties.

    Above ``sample_rows`` items a uniform sample of them competes (ours): every item with every candidate is what the
    paper's core-set avoids. parts: margin of the items that competed, and these (compared).

    Source: Zhang and Zhu, 2025, arXiv 2510.03247, the core-set being everything (unaligned.md section 5); the drawn
    modality is ours.
    """

    name: ClassVar[str] = "pair_margin"
    title: ClassVar[str] = "Smallest margin between candidates"
    paper: ClassVar[str] = "baseline of Zhang and Zhu, arXiv 2510.03247"
    complexity: ClassVar[str] = "O(min(n, sample_rows) n d) time as matrix products, O(n) memory"

    margin: str = option("plain", "between candidates, or between groups of near-duplicates", choices=MARGINS)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        modality, rows, found = self.compared(pairs, open_, count, rng, candidates, self.margin)
        places = np.argsort(found.margin, kind="stable")[:count]
        figures = {
            "margin": found.margin[places],
            "margin_percentile": percentile(found.margin[places], found.margin),
        }
        parts = {"compared": rows, "margin": found.margin}
        return Picks(modality, rows[places], ["narrow_margin"] * len(places), figures, parts, found.at(places))
