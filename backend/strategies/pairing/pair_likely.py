"""Items whose counterpart is most likely among the candidates shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.pairing.base import Open, PairStrategy, Picks, drawn_modality
from backend.strategies.pairing.matching import SIMILARITIES, Matching
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class PairLikely(PairStrategy):
    """x"""

    name: ClassVar[str] = "pair_likely"
    title: ClassVar[str] = "Counterpart most likely among the candidates"
    paper: ClassVar[str] = "ours"
    complexity: ClassVar[str] = "O(min(n, sample_rows) n d) time as matrix products, O(n) memory"

    among: float = option(0.0, "batches", low=0.0, high=1000.0)
    similarity: str = option(
        "csls", "plain cosine, or corrected for candidates that are similar to everything", choices=SIMILARITIES
    )
    temperature: float = option(0.05, "of the correction lse", low=1e-3, high=1.0)
    sample_rows: int = option(10_000, "items that compete; a uniform sample of a larger pool", low=100, high=100_000)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        modality = drawn_modality(open_, rng)
        size = round(self.among * count) or self.sample_rows
        rows, _ = uniform_sample(np.flatnonzero(open_[modality]), max(size, count), rng)
        matching = Matching.of(pairs, modality, self.similarity, self.temperature, rng)
        found = matching.best(rows, max(candidates, 2))
        places = np.argsort(-found.column(0), kind="stable")[:count]
        return Picks(modality, rows[places], ["random"] * len(places), {}, {}, found.at(places))
