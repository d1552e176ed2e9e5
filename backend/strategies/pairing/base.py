"""The contract of a pair strategy: which items of two unpaired pools are worth asking about."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from backend.errors import InvalidOption, StrategyUnsuited
from backend.strategies.base import Registered, option
from backend.strategies.pairing.matching import Matches, Matching
from backend.strategies.pairing.pairs import MODALITIES, Pairs, PairSelection, Query

Open = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Picks:
    """What a strategy picked: ``items`` of ``modality``, with a figure array (aligned, nan where not known) a name
    and a reason each; matches: their candidates where the strategy knows them already."""

    modality: str
    items: np.ndarray
    why: Sequence[str]
    figures: Mapping[str, np.ndarray] = field(default_factory=dict)
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    matches: Matches | None = None


@dataclass(frozen=True)
class PairStrategy(Registered):
    """Base of the strategies that choose what to ask about in two unpaired pools.

    A question has a direction: an image is shown with candidate texts, or a text with candidate images. Each round
    asks about one modality (as reviewers quote the paper, unaligned.md section 2) unless a dress draws controls too.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    any_size: ClassVar[str] = "'pair_likely' or 'pair_random'"

    directions: str = option(
        "both", "what may be asked about: both modalities, or one of them", choices=("both", *MODALITIES)
    )

    def check(
        self,
        *,
        multi_label: bool,
        n_classes: int,
        modalities: Sequence[str],
        pool_size: int | None = None,
        pairs: bool = False,
        **_: Any,
    ) -> None:
        """As ``Registered.check``; what a project classifies says nothing here."""
        if not pairs:
            raise StrategyUnsuited(
                f"strategy {self.name!r} pairs two pools of items and this project has none; "
                "use 'auto' or another strategy that chooses records"
            )
        missing = sorted(set(MODALITIES) - set(modalities))
        if missing:
            raise StrategyUnsuited(
                f"strategy {self.name!r} pairs images with texts and the project has {list(modalities)}; "
                f"add a pool of {' and '.join(missing)} items"
            )
        if pool_size is not None:
            self._check_size(pool_size)

    def select(
        self, pairs: Pairs, batch_size: int, rng: np.random.Generator, *, candidates: int = 8
    ) -> PairSelection:
        """Choose ``batch_size`` items of one modality to ask about, or as many as it has, each with ``candidates``
        of the other modality, best first. Same pairs, seed and options, same queries.

        Raises InvalidOption for a negative ``batch_size`` or fewer than one candidate, PoolTooLarge above
        ``max_pool`` items in a modality.
        """
        if batch_size < 0:
            raise InvalidOption(f"batch_size is {batch_size}; it must be 0 or more")
        if candidates < 1:
            raise InvalidOption(f"candidates is {candidates}; a query shows 1 or more")
        self._check_size(max(pairs.size(modality) for modality in MODALITIES))
        open_ = self.askable(pairs)
        if batch_size == 0 or not open_:
            return PairSelection(())
        picks = self._pick(pairs, open_, batch_size, rng, candidates)
        return PairSelection(tuple(queries_of(pairs, picks, candidates)), picks.modality, dict(picks.parts))

    def askable(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """Modality -> (n_m,) bool of what may be asked about now; modalities with nothing left are not in it."""
        allowed = MODALITIES if self.directions == "both" else (self.directions,)
        masks = {modality: pairs.open(modality) for modality in allowed}
        return {modality: mask for modality, mask in masks.items() if mask.any()}

    @abstractmethod
    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        """At most ``count`` >= 1 items of one modality; open_: what may be asked about, at least one item."""


def queries_of(pairs: Pairs, picks: Picks, candidates: int) -> list[Query]:
    """The picks with their candidates (by plain similarity where the strategy found none) and figures."""
    matches = picks.matches
    if matches is None:
        matches = Matching.of(pairs, picks.modality).best(picks.items, max(candidates, 2))
    shown = matches.rows[:, :candidates]
    figures = {
        "guess_similarity": matches.column(0),
        "runner_similarity": matches.column(1),
        "margin": matches.margin,
        **picks.figures,
    }
    return [
        Query(
            picks.modality,
            int(item),
            shown[place][shown[place] >= 0],
            {name: float(values[place]) for name, values in figures.items() if np.isfinite(values[place])},
            picks.why[place],
        )
        for place, item in enumerate(picks.items)
    ]


def drawn_modality(open_: Open, rng: np.random.Generator) -> str:
    """A modality at random, each by how many items it has, so that every item is equally likely to be drawn."""
    names = list(open_)
    sizes = np.array([int(open_[name].sum()) for name in names], dtype=np.float64)
    return names[int(rng.choice(len(names), p=sizes / sizes.sum()))]
