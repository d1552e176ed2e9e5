"""Smallest margins of a whole modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.explain import percentile
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.pairing.base import Open, PairStrategy, Picks, drawn_modality
from backend.strategies.pairing.matching import MARGINS, SIMILARITIES, Matching
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class PairMargin(PairStrategy):
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
    similarity: str = option(
        "plain", "plain cosine, or corrected for candidates that are similar to everything", choices=SIMILARITIES
    )
    temperature: float = option(0.05, "of the correction lse", low=1e-3, high=1.0)
    sample_rows: int = option(10_000, "items that compete; a uniform sample of a larger pool", low=100, high=100_000)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        modality = drawn_modality(open_, rng)
        rows, _ = uniform_sample(np.flatnonzero(open_[modality]), max(self.sample_rows, count), rng)
        matching = Matching.of(pairs, modality, self.similarity, self.temperature, rng)
        found = matching.best(rows, max(candidates, 2), margin=self.margin)
        places = np.argsort(found.margin, kind="stable")[:count]
        figures = {
            "margin": found.margin[places],
            "margin_percentile": percentile(found.margin[places], found.margin),
        }
        parts = {"compared": rows, "margin": found.margin}
        return Picks(modality, rows[places], ["narrow_margin"] * len(places), figures, parts, found.at(places))
