"""Unpaired items that would be hard negatives of the known pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.kernels.confusion import hinge_scores
from backend.strategies.pairing.base import Open, PairStrategy, Picks
from backend.strategies.pairing.pair_random import PairRandom
from backend.strategies.pairing.pairs import MODALITIES, Pairs, other
from backend.strategies.pairing.spaces import Space


@dataclass(frozen=True)
class HardNegative(PairStrategy):
    """Items x with the largest h(x) = agg_i [s(x, l_i) - s(v_i, l_i) + triplet_margin]_+ over the known pairs.

    x an image; for a text the roles change. agg: the largest, or the mean of the ``top`` largest. A round asks about
    the modality whose batch has the larger sum of h, images on a tie; items that confuse nothing follow by the value
    without the cut at 0, then by row. While nothing is paired the draw is random. parts: h (n_open,) of the modality.

    This is our reading of the abstract, not the authors' procedure: their condition with thresholds and its
    aggregation were not recoverable; choice of the modality, ties and cold start are ours too.

    Source: after Jo, Lee, Chung and Choi, arXiv 2405.16301, 2024, as in unaligned.md section 7.1.
    """

    name: ClassVar[str] = "hard_negative"
    title: ClassVar[str] = "Hard negatives of the known pairs"
    paper: ClassVar[str] = "after Jo et al., arXiv 2405.16301 (our reading)"
    complexity: ClassVar[str] = "O(n p d) time as matrix products, p pairs; O(n) memory"

    aggregate: str = option(
        "max", "over the pairs: the largest hinge, or the mean of the largest", choices=("max", "mean")
    )
    top: int = option(5, "hinges that aggregate=mean takes", low=1, high=1000)
    triplet_margin: float = option(0.2, "margin of the triplet loss", low=0.0, high=2.0)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        if not len(pairs.known):
            return PairRandom(self.directions)._pick(pairs, open_, count, rng, candidates)
        best: tuple[float, str, np.ndarray, np.ndarray, np.ndarray] | None = None
        for modality, mask in open_.items():
            rows = np.flatnonzero(mask)
            cut, raw = self._scores(pairs, modality, rows)
            order = np.lexsort((rows, -raw, -cut))[:count]
            total = float(cut[order].sum())
            if best is None or total > best[0]:
                best = (total, modality, rows[order], cut[order], cut)
        assert best is not None
        _, modality, items, hinge, scores = best
        return Picks(modality, items, ["confusable"] * len(items), {"hinge": hinge}, {"h": scores})

    def _scores(self, pairs: Pairs, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own, theirs = (Space.of(pairs, m, "joint", "cosine") for m in (modality, other(modality)))
        column = MODALITIES.index(modality)
        members, anchors = own.rows(pairs.known[:, column]), theirs.rows(pairs.known[:, 1 - column])
        matched = np.einsum("ij,ij->i", members, anchors, dtype=np.float64)
        return hinge_scores(
            own, rows, anchors, matched, self.triplet_margin, 1 if self.aggregate == "max" else self.top
        )
