"""Items whose counterpart is most likely among the candidates shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.explain import percentile
from backend.strategies.pairing.base import Open, Picks
from backend.strategies.pairing.comparing import Comparing
from backend.strategies.pairing.matching import SIMILARITIES
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class PairLikely(Comparing):
    """The items of a modality drawn at random whose best candidate is the most similar one, lowest row on ties.

    A question gains a pair where the counterpart is among the candidates shown, else it says only what does not
    belong together; so this asks where the model's own similarity says that it is. Similarities are corrected for
    candidates that are similar to everything (CSLS), which asks about other items and shows other candidates, and
    candidates that an annotator refused for an item count no more. Above ``sample_rows`` items a uniform sample of
    them competes. parts: guess_similarity of the items that competed, and these (compared).

    It is the opposite of ``pair_margin``: it looks for what the model is sure of, as an unsure question mostly gains
    nothing.

    Source: ours; the correction is that of Conneau et al., ICLR 2018 (``kernels.hubness``).
    """

    name: ClassVar[str] = "pair_likely"
    title: ClassVar[str] = "Counterpart most likely among the candidates"
    paper: ClassVar[str] = "ours, with the correction of Conneau et al., ICLR 2018"
    complexity: ClassVar[str] = "O(min(n, sample_rows) n d) time as matrix products, O(n) memory"

    similarity: str = option(
        "csls", "plain cosine, or corrected for candidates that are similar to everything", choices=SIMILARITIES
    )

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        modality, rows, found = self.compared(pairs, open_, count, rng, candidates)
        best = np.nan_to_num(found.column(0), nan=-np.inf)
        places = np.argsort(-best, kind="stable")[:count]
        figures = {"guess_percentile": percentile(best[places], best)}
        parts = {"compared": rows, "guess_similarity": best}
        return Picks(modality, rows[places], ["likely"] * len(places), figures, parts, found.at(places))
