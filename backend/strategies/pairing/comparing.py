"""Items of a whole modality compared by what their candidates look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.strategies.base import option
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.pairing.base import Open, PairStrategy, drawn_modality
from backend.strategies.pairing.matching import SIMILARITIES, Matches, Matching
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class Comparing(PairStrategy):
    """The options and the work of ``pair_margin`` and ``pair_likely``: a modality drawn at random, ``sample_rows`` of
    its items at most, the best candidates of each."""

    similarity: str = option(
        "plain", "plain cosine, or corrected for candidates that are similar to everything", choices=SIMILARITIES
    )
    temperature: float = option(0.05, "of the correction lse", low=1e-3, high=1.0)
    sample_rows: int = option(10_000, "items that compete; a uniform sample of a larger pool", low=100, high=100_000)

    def compared(
        self,
        pairs: Pairs,
        open_: Open,
        count: int,
        rng: np.random.Generator,
        candidates: int,
        margin: str = "plain",
    ) -> tuple[str, np.ndarray, Matches]:
        """(modality, rows of it, their candidates); ``margin`` as in ``Matching.best``."""
        modality = drawn_modality(open_, rng)
        rows, _ = uniform_sample(np.flatnonzero(open_[modality]), max(self.sample_rows, count), rng)
        matching = Matching.of(pairs, modality, self.similarity, self.temperature, rng)
        return modality, rows, matching.best(rows, max(candidates, 2), margin=margin)
