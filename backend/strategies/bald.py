"""BALD: what the label would tell about the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option, top_scored
from backend.strategies.kernels.dropout import mutual_information, thinned_heads, thinned_probabilities
from backend.strategies.kernels.linear_scores import LinearScores, row_chunks
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Bald(LabelledStrategy):
    """Mutual information between label and model: H(mean prediction) - mean of H(prediction), over dropout passes.

    Large where the passes are each sure and contradict one another. The posterior is dropout on the frozen features
    in front of the linear head: it needs nothing but the head, while a Laplace posterior needs the Hessian of
    C x D weights. The head is trained without dropout, so this is a perturbation of it and not the posterior that
    dropout training would give. A pass is one thinned head for all records (as in BatchBALD, Kirsch et al., NeurIPS
    2019): records are compared by the same functions, and a pass is one matrix product. Every absent modality is
    zero already and tells nothing.
    Multi-label: mean over classes of the binary mutual information. ``compat`` turns its sign, as the BMMAL authors'
    code does, which then picks the least informative records.

    Source: Houlsby et al., arXiv 1112.5745, 2011, eq. 2; dropout passes: Gal, Islam and Ghahramani, ICML 2017.
    """

    name: ClassVar[str] = "bald"
    title: ClassVar[str] = "BALD (dropout)"
    paper: ClassVar[str] = "Houlsby et al., 2011, arXiv 1112.5745; Gal et al., ICML 2017, arXiv 1703.02910"
    complexity: ClassVar[str] = "O(T n C D) time, O(n) memory beside the inputs, T passes"

    passes: int = option(20, "dropout passes", low=2, high=1000)
    dropout: float = option(0.5, "share of the numbers that a pass leaves out", low=0.01, high=0.99)
    compat: bool = option(False, "multi-label: the least informative first, as the BMMAL authors' code")

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        head = pool.require_head()
        scores = LinearScores.of(head.fused, head.fused_bias, head.seen, multi_label=pool.multi_label)
        heads = thinned_heads(scores, self.dropout, self.passes, rng)
        information = np.empty(len(pool))
        view = UnitView(pool.features)
        for part in row_chunks(len(pool), CHUNK_ROWS):
            passes = thinned_probabilities(view.rows(part), scores, heads, multi_label=pool.multi_label)
            information[part] = mutual_information(passes, multi_label=pool.multi_label)
        wanted = -information if self.compat and pool.multi_label else information
        return top_scored(wanted, pool, count, rng)
