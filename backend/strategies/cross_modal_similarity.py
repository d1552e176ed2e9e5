"""Cross-modal similarity: the pairs whose image and text lie farthest apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, top_scored
from backend.strategies.kernels.pair_similarity import at_median, pair_cosines
from backend.strategies.pool import Pool


@dataclass(frozen=True)
class CrossModalSimilarity(LabelledStrategy):
    """The k pairs with the smallest cosine of image and text in the space of the retrieval model.

    The authors' code takes un-normalised products out of an n x n table; rows here have unit length and each pair is
    one product. A pair that lacks a side has no cosine and stands at the median of the others (ours).

    Source: the baseline "inter-modality" of Zhang et al., Active Supervised Cross-Modal Retrieval, IEEE TPAMI 2025,
    in their code; ascmr.md section 3.
    """

    name: ClassVar[str] = "cross_modal_similarity"
    title: ClassVar[str] = "Cross-modal similarity"
    paper: ClassVar[str] = "baseline in the code of Zhang et al., IEEE TPAMI 2025"
    needs: ClassVar[frozenset[str]] = frozenset({"shared_space"})
    complexity: ClassVar[str] = "O(n D) time, O(n) memory"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        cosines, known = pair_cosines(pool.features["image"], pool.features["text"])
        return top_scored(-at_median(cosines, known), pool, count, rng)
