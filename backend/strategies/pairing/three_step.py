"""Three steps: the worse covered modality, a core-set of it, the smallest margins in that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.explain import percentile
from backend.strategies.pairing.base import Open, Picks
from backend.strategies.pairing.covering import CoreRows, CoverStrategy
from backend.strategies.pairing.matching import MARGINS, SIMILARITIES, Matching
from backend.strategies.pairing.pair_random import PairRandom
from backend.strategies.pairing.pairs import Pairs


@dataclass(frozen=True)
class ThreeStep(CoverStrategy):
    """Algorithm 1 of Zhang and Zhu, for pools whose pairing is the label.

    Per round: (1) the modality whose farthest unpaired item is farther from its paired ones; (2) B_C items of it by
    farthest-first, paired ones being centres; (3) of these the B whose two best cross-modal similarities are
    closest. Ties: the image, the lowest row, the earlier item of the core-set. B_C = ``core_size``, or
    ``core_factor`` times B, at least B; B_C = B is the modality-aware core-set, B_C = everything the margin alone.

    What is whose (unaligned.md section 0): the setting and unit cost are stated in the paper's own stored text; the
    three steps, the max-min rule (formula 1) and the margin are quoted by its reviewers. Not recoverable, and
    therefore ours: distance and features of steps 1 and 2, which candidates step 3 looks at (unpaired ones, all with
    many-to-many), tie rules, cold start, the default B_C = 4 B; the other rules, group margins, hub-corrected
    similarities, guard and floor are additions of ours. No number of the paper was reproduced.

    parts: radii (2,) of image and text as compared; coreset (B_C,) rows in order, cover (inf for the first of a cold
    start), margin (inf with one candidate), guess and runner (-1 for none) of its rows.

    Source: Zhang and Zhu, Towards Multimodal Active Learning: Efficient Learning with Limited Paired Data, 2025,
    arXiv 2510.03247, put together from reviews as unaligned.md says; exact lazy farthest-first: ``kernels.kcenter``.
    """

    name: ClassVar[str] = "three_step"
    title: ClassVar[str] = "Three steps (modality, core-set, margin)"
    paper: ClassVar[str] = "Zhang and Zhu, arXiv 2510.03247, as far as it could be recovered"
    complexity: ClassVar[str] = (
        "O(n (p + B_C) D) time as matrix products, p pairs, less where bounds hold; O(n) memory"
    )

    core_factor: float = option(4.0, "core-set size B_C in batches", low=1.0, high=1000.0)
    core_size: int = option(0, "core-set size B_C in items instead; 0: by core_factor", low=0, high=1_000_000)
    margin: str = option("plain", "between candidates, or between groups of near-duplicates", choices=MARGINS)
    similarity: str = option(
        "plain", "plain cosine, or corrected for candidates that are similar to everything", choices=SIMILARITIES
    )
    temperature: float = option(0.05, "of the correction lse", low=1e-3, high=1.0)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        if self.cold_start == "random" and not len(pairs.known):
            return PairRandom(self.directions)._pick(pairs, open_, count, rng, candidates)
        size = max(count, self.core_size or round(self.core_factor * count))
        core = self.core(pairs, open_, size, rng)
        matching = Matching.of(pairs, core.modality, self.similarity, self.temperature, rng)
        found = matching.best(core.rows, max(candidates, 2), margin=self.margin)
        places = np.argsort(found.margin, kind="stable")[:count]
        narrow = 1.0 - percentile(found.margin, found.margin)[places]
        # With nothing to choose from in the third step it was the second that chose.
        told = narrow if len(core.rows) > count else np.zeros(len(places))
        return Picks(
            core.modality,
            core.rows[places],
            ["narrow_margin" if n > s else "uncovered" for n, s in zip(told, core.share[places], strict=True)],
            {**cover_figures(core, places), "margin": found.margin[places], "margin_percentile": 1.0 - narrow},
            {
                "radii": core.radii,
                "coreset": core.rows,
                "cover": core.cover,
                "margin": found.margin,
                "guess": found.guess,
                "runner": found.runner,
            },
            found.at(places),
        )


def cover_figures(core: CoreRows, places: np.ndarray) -> dict[str, np.ndarray]:
    """What steps 1 and 2 tell of the core-set rows at ``places``."""
    return {
        "cover": core.cover[places],
        "cover_percentile": core.share[places],
        "radius_image": np.full(len(places), core.radii[0]),
        "radius_text": np.full(len(places), core.radii[1]),
    }
