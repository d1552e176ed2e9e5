"""Half hard negatives, half three steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import option
from backend.strategies.pairing.base import Open, Picks
from backend.strategies.pairing.hard_negative import HardNegative
from backend.strategies.pairing.pairs import Pairs
from backend.strategies.pairing.three_step import ThreeStep


@dataclass(frozen=True)
class PairMix(ThreeStep):
    """The modality of ``three_step``; a part ``hard_share`` of the batch by ``hard_negative`` in it, the rest by
    ``three_step``, evenly interleaved, hard negatives first. While nothing is paired it is ``three_step``.

    parts: those of ``three_step``.

    Source: ours (unaligned.md section 8, "mix"), of Zhang and Zhu, 2025, and Jo et al., 2024.
    """

    name: ClassVar[str] = "pair_mix"
    title: ClassVar[str] = "Half hard negatives, half three steps"
    paper: ClassVar[str] = "ours, of arXiv 2510.03247 and arXiv 2405.16301"
    complexity: ClassVar[str] = "that of three_step and hard_negative"

    hard_share: float = option(0.5, "part of the batch that are hard negatives", low=0.0, high=1.0)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        steps = super()._pick(pairs, open_, count, rng, candidates)
        wanted = round(self.hard_share * len(steps.items))
        if not len(pairs.known) or not wanted:
            return steps
        mask = {steps.modality: open_[steps.modality]}
        hard = HardNegative()._pick(pairs, mask, wanted, rng, candidates)
        kept = np.flatnonzero(~np.isin(steps.items, hard.items))[: len(steps.items) - wanted]
        places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in (wanted, len(kept))])
        order = np.argsort(places, kind="stable")
        nothing = np.full(wanted, np.nan)
        figures = {name: np.concatenate([nothing, values[kept]])[order] for name, values in steps.figures.items()}
        figures["hinge"] = np.concatenate([hard.figures["hinge"], np.full(len(kept), np.nan)])[order]
        items = np.concatenate([hard.items, steps.items[kept]])[order]
        why = [*hard.why, *(steps.why[place] for place in kept)]
        return Picks(steps.modality, items, [why[place] for place in order], figures, steps.parts)
