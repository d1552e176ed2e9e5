"""The strategies by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backend.errors import UnknownOption, UnknownStrategy
from backend.strategies.alfamix import AlfaMix
from backend.strategies.audit import Audited
from backend.strategies.auto import Auto
from backend.strategies.badge import Badge
from backend.strategies.bald import Bald
from backend.strategies.base import Strategy, StrategyInfo
from backend.strategies.bmmal import Bmmal
from backend.strategies.class_balance import Balanced
from backend.strategies.cluster_margin import ClusterMargin
from backend.strategies.coregcn import CoreGcn
from backend.strategies.coreset import CoreSet
from backend.strategies.deepfool import DeepFool
from backend.strategies.dropquery import DropQuery
from backend.strategies.entropy import Entropy
from backend.strategies.kmeans import KMeans
from backend.strategies.kmeans_cold_start import KMeansColdStart
from backend.strategies.least_confidence import LeastConfidence
from backend.strategies.margin import Margin
from backend.strategies.maxherding import MaxHerding
from backend.strategies.probcover import ProbCover
from backend.strategies.random_sampling import RandomSampling
from backend.strategies.typiclust import TypiClust
from backend.strategies.uherding import UHerding
from backend.strategies.uncertain_gcn import UncertainGcn

_REGISTERED: tuple[type[Strategy], ...] = (
    AlfaMix,
    Auto,
    Badge,
    Bald,
    Bmmal,
    ClusterMargin,
    CoreGcn,
    CoreSet,
    DeepFool,
    DropQuery,
    Entropy,
    KMeans,
    KMeansColdStart,
    LeastConfidence,
    Margin,
    MaxHerding,
    ProbCover,
    RandomSampling,
    TypiClust,
    UHerding,
    UncertainGcn,
)
_BY_NAME = {strategy.name: strategy for strategy in _REGISTERED}


def strategy_names() -> list[str]:
    """Names of all strategies, in alphabetical order."""
    return sorted(_BY_NAME)


def strategy_class(name: str) -> type[Strategy]:
    """The class behind a name; raises UnknownStrategy, which lists the known ones."""
    if name not in _BY_NAME:
        raise UnknownStrategy(f"strategy {name!r} does not exist; choose one of {', '.join(strategy_names())}")
    return _BY_NAME[name]


def describe(name: str) -> StrategyInfo:
    """Title, paper, needs, options with defaults, and complexity of a strategy; raises UnknownStrategy."""
    return strategy_class(name).info()


def create_strategy(name: str, *, balance: str = "none", audit_share: float = 0.0, **options: Any) -> Strategy:
    """A strategy with its options checked, and dressed where asked for.

    balance: "none", "pcb" or "tail_first", see ``class_balance``; audit_share: part of each batch drawn uniformly,
    0 to 1, see ``audit`` (outside the balance: the draws are from all unlabelled records).
    Raises UnknownStrategy, UnknownOption or InvalidOption.
    """
    kind = strategy_class(name)
    known = [spec.name for spec in fields(kind)]
    for given in options:
        if given not in known:
            raise UnknownOption(
                f"strategy {name!r} has no option {given!r}; it knows {', '.join(known) if known else 'no options'}"
            )
    strategy = kind(**options)
    if balance != "none":
        strategy = Balanced(strategy, balance)
    # Constructed for 0 as well: what is no share is refused there.
    audited = Audited(strategy, audit_share)
    return audited if audit_share else strategy
