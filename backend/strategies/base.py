"""The contract of a strategy, and what all of them share: options, cold start, explanations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from backend.checked_options import option as option
from backend.checked_options import option_problem
from backend.errors import InvalidOption, PoolTooLarge, StrategyUnsuited
from backend.strategies.explain import Explanation
from backend.strategies.pool import Pool

# What a strategy may need; ``check`` refuses a project that cannot give it.
NEEDS = frozenset({"pairs", "probabilities", "shared_space", "single_label", "two_modalities"})


@dataclass(frozen=True)
class Selection:
    """indices: picks in order, distinct, unlabelled; utilities: (n,) float, larger = sooner, finite everywhere,
    comparable within this selection only: the picks lie above all others, in pick order, labelled rows below all;
    parts: name -> array aligned with indices, from which reasons are told."""

    indices: np.ndarray
    utilities: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def queue(self, labelled: np.ndarray, length: int) -> np.ndarray:
        """The picks, then the other unlabelled rows by falling utility (lowest index on ties), ``length`` at most."""
        rest = ~labelled
        rest[self.indices] = False
        reserve = np.flatnonzero(rest)
        order = np.argsort(-self.utilities[reserve], kind="stable")
        return np.concatenate([self.indices, reserve[order]])[:length]


@dataclass(frozen=True)
class StrategyInfo:
    """Facts about a registered strategy, for documentation and admin pages."""

    name: str
    title: str
    paper: str
    needs: frozenset[str]
    options: Mapping[str, Any]
    option_help: Mapping[str, str]
    complexity: str
    max_pool: int | None = None


@dataclass(frozen=True)
class Registered(ABC):
    """What strategies of every kind share: a name, facts, and options, which are the fields of frozen dataclasses.

    max_pool: records, labelled ones included, above which the strategy refuses; None where time and memory allow any
    pool of the size this project is made for (a million records).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    complexity: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    max_pool: ClassVar[int | None] = None
    # What a refusal for size recommends.
    any_size: ClassVar[str] = "'auto', 'badge' or 'margin'"

    def __post_init__(self) -> None:
        for spec in fields(self):
            problem = option_problem(
                f"{self.name}.{spec.name}", getattr(self, spec.name), spec.default, spec.metadata
            )
            if problem:
                raise InvalidOption(problem)

    @classmethod
    def info(cls) -> StrategyInfo:
        """Facts about this strategy."""
        specs = fields(cls)
        return StrategyInfo(
            cls.name,
            cls.title,
            cls.paper,
            cls.needs,
            {spec.name: spec.default for spec in specs},
            {spec.name: spec.metadata["help"] for spec in specs},
            cls.complexity,
            cls.max_pool,
        )

    @abstractmethod
    def check(
        self,
        *,
        multi_label: bool,
        n_classes: int,
        modalities: Sequence[str],
        pool_size: int | None = None,
        pairs: bool = False,
        shared_space: bool = False,
    ) -> None:
        """Raise StrategyUnsuited if this strategy is not defined for such a project, PoolTooLarge if the project has
        more records (``pool_size``, where known) than the strategy takes; pairs: it pairs two pools of items;
        shared_space: its records are pairs, embedded in one space by a retrieval model."""

    def _check_size(self, records: int) -> None:
        if self.max_pool is not None and records > self.max_pool:
            raise PoolTooLarge(
                f"strategy {self.name!r} takes {self.max_pool:,} records at most and the project has {records:,}; "
                f"use {self.any_size}, which take any number"
            )


@dataclass(frozen=True)
class Strategy(Registered):
    """Base of the strategies that choose records to be classified.

    reason: code of what annotators read about its picks (`backend.rounds.reasons`); empty where figures about each
    pick tell it, as they do for strategies that look at predictions.
    """

    reason: ClassVar[str] = ""

    def check(
        self,
        *,
        multi_label: bool,
        n_classes: int,
        modalities: Sequence[str],
        pool_size: int | None = None,
        pairs: bool = False,
        shared_space: bool = False,
    ) -> None:
        """As ``Registered.check``."""
        if pairs:
            raise StrategyUnsuited(
                f"strategy {self.name!r} chooses records to be classified and this project pairs two pools; "
                "use 'pair_likely' or another strategy that needs pairs"
            )
        if pool_size is not None:
            self._check_size(pool_size)
        self._check_labels(multi_label)
        if "shared_space" in self.needs and not shared_space:
            raise StrategyUnsuited(self._without_space())
        if "two_modalities" in self.needs and len(modalities) < 2:
            raise StrategyUnsuited(
                f"strategy {self.name!r} compares modalities and the project has {list(modalities)}; "
                "use 'badge', which it equals on one modality"
            )
        if "probabilities" in self.needs and n_classes < 2 and not multi_label:
            raise StrategyUnsuited(
                f"strategy {self.name!r} needs a prediction that can vary and the project has {n_classes} class; "
                "add a choice, or use 'random' or 'kmeans_cold_start'"
            )

    def _without_space(self) -> str:
        return (
            f"strategy {self.name!r} compares image and text in one space, which only projects made from the "
            "template 'cross_modal_retrieval' have; use 'auto' or another strategy without this need"
        )

    def _check_space(self, pool: Pool) -> None:
        widths = [pool.features[name].shape[1] for name in ("image", "text") if name in pool.features]
        if "shared_space" in self.needs and (len(widths) < 2 or widths[0] != widths[1]):
            raise StrategyUnsuited(self._without_space())

    def _check_labels(self, multi_label: bool) -> None:
        if "single_label" in self.needs and multi_label:
            raise StrategyUnsuited(
                f"strategy {self.name!r} is defined for single-choice projects only; choose another"
            )

    def reason_in(self, pool: Pool) -> str:
        """The reason for picks from this pool."""
        return self.reason

    def select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        """Pick ``batch_size`` unlabelled rows, or all there are if fewer. Same pool, seed and options, same picks.

        Raises InvalidOption for a negative ``batch_size``, PoolTooLarge above ``max_pool`` records and
        StrategyUnsuited for several labels a record, or vectors without a common space, where it is not defined.
        """
        self._check_size(len(pool))
        self._check_labels(pool.multi_label)
        self._check_space(pool)
        if batch_size < 0:
            raise InvalidOption(f"batch_size is {batch_size}; it must be 0 or more")
        count = min(batch_size, len(pool) - int(pool.labelled.sum()))
        if count == 0:
            return Selection(np.empty(0, dtype=np.int64), np.zeros(len(pool)), {})
        indices, utilities, parts = self._pick(pool, count, rng)
        return Selection(indices, _ranked(utilities, indices, pool), Explanation(pool, indices, parts))

    @abstractmethod
    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """(indices, utilities, parts of this strategy); 1 <= count <= number of unlabelled rows."""


@dataclass(frozen=True)
class LabelledStrategy(Strategy):
    """A strategy that ranks by a head's predictions and hands over to a cold start while no row is labelled."""

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})

    cold_start: str = option(
        "kmeans_cold_start", "strategy while nothing is labelled", choices=("kmeans_cold_start", "random")
    )

    def select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        """As ``Strategy.select``; delegates to ``cold_start`` when no row is labelled."""
        # Refused now and not after the first labels were spent.
        self._check_size(len(pool))
        self._check_labels(pool.multi_label)
        if not pool.labelled.any():
            # There is no space before a model was trained.
            return self._cold_strategy().select(pool, batch_size, rng)
        return super().select(pool, batch_size, rng)

    def reason_in(self, pool: Pool) -> str:
        """That of ``cold_start`` when no row is labelled."""
        return self.reason if pool.labelled.any() else self._cold_strategy().reason

    def _cold_strategy(self) -> Strategy:
        # Here and not above: the registry imports every strategy, and they import this module.
        from backend.strategies.registry import create_strategy

        return create_strategy(self.cold_start)


def _ranked(utilities: np.ndarray, indices: np.ndarray, pool: Pool) -> np.ndarray:
    """A copy with the picks lifted above the other unlabelled rows and the labelled ones put below them."""
    out = np.array(utilities, dtype=np.float64)
    rest = ~pool.labelled
    rest[indices] = False
    high, low = (float(out[rest].max()), float(out[rest].min())) if rest.any() else (0.0, 0.0)
    # Steps of the size of the values, so that they survive rounding whatever the scale.
    step = max(abs(high), abs(low), 1.0)
    out[indices] = high + step * (len(indices) - np.arange(len(indices)))
    out[pool.labelled] = low - step
    return out


def top_scored(
    scores: np.ndarray, pool: Pool, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The ``count`` unlabelled rows with the largest scores; exact ties in random order (so that a constant score
    picks uniformly, not the oldest records). Returns what ``_pick`` returns."""
    shuffled = rng.permutation(pool.unlabelled)
    order = np.argsort(-scores[shuffled], kind="stable")[:count]
    return shuffled[order], scores, {"score": scores[shuffled[order]]}
