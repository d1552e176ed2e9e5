"""DropQuery: spread over the records whose prediction does not survive dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.dropout import disagreements
from backend.strategies.kernels.linear_scores import LinearScores, row_chunks
from backend.strategies.kernels.representatives import representatives
from backend.strategies.kernels.uncertainty import margin
from backend.strategies.kernels.views import CentredView, UnitView
from backend.strategies.pool import Pool

# Candidates wanted for each pick before the threshold of disagreement stops falling (the authors' code).
CANDIDATES_PER_PICK = 25


@dataclass(frozen=True)
class DropQuery(LabelledStrategy):
    """k-means, one cluster a pick, on the records that most dropout passes predict differently; the central ones.

    A record is a candidate when more than half of the ``passes`` (a new mask for each record and pass) change its
    class; the threshold falls by one until there are 25 candidates a pick, at least one change being needed. Too few
    candidates: uniform draws fill up. Passes, rate (0.75) and these rules are those of the authors' published code,
    which also trains its classifier with this dropout and batch normalisation; our head is trained without, and the
    centred view stands for the normalised features. Above ``sample_rows`` candidates a uniform sample is clustered
    (ours). Reserve: by number of changed passes, then margin. The paper's centroid start is the default cold start.

    Source: Gupte et al., Revisiting Active Learning in the Era of Vision Foundation Models, TMLR 2024,
    arXiv 2401.14555, section 4, and its code (sanketx/AL-foundation-models).
    """

    name: ClassVar[str] = "dropquery"
    title: ClassVar[str] = "DropQuery"
    paper: ClassVar[str] = "Gupte et al., TMLR 2024, arXiv 2401.14555"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "single_label"})
    complexity: ClassVar[str] = "O(T n C D + rounds s k D) time, O(n + s D) memory, s = min(n, sample_rows)"

    passes: int = option(3, "dropout passes", low=1, high=100)
    dropout: float = option(0.75, "share of the numbers that a pass leaves out", low=0.01, high=0.99)
    sample_rows: int = option(20_000, "candidates clustered at most (4 a pick where that is more)", low=100)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        head = pool.require_head()
        scores = LinearScores.of(head.fused, head.fused_bias, head.seen, multi_label=False)
        free = pool.unlabelled
        changed = np.zeros(len(pool), dtype=np.int64)
        view = UnitView(pool.features)
        for part in row_chunks(len(free)):
            changed[free[part]] = disagreements(view.rows(free[part]), scores, self.dropout, self.passes, rng)
        threshold = self.passes // 2
        while threshold > 0 and (changed[free] > threshold).sum() < CANDIDATES_PER_PICK * count:
            threshold -= 1
        suspect = changed[free] > threshold
        vectors = CentredView.of(pool.features).rows
        picks = representatives(free[suspect], free[~suspect], count, vectors, rng, sample_rows=self.sample_rows)
        utilities = changed + 0.5 * margin(pool.require_probabilities(), multi_label=False)
        return picks, utilities, {"disagreeing_passes": changed[picks] / self.passes}
