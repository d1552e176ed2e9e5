"""The strategies by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backend.errors import StrategyUnsuited, UnknownOption, UnknownStrategy
from backend.strategies.alfamix import AlfaMix
from backend.strategies.ascmr import Ascmr
from backend.strategies.audit import Audited
from backend.strategies.auto import Auto
from backend.strategies.badge import Badge
from backend.strategies.bald import Bald
from backend.strategies.base import Registered, Strategy, StrategyInfo
from backend.strategies.bmmal import Bmmal
from backend.strategies.cdal import Cdal
from backend.strategies.class_balance import Balanced
from backend.strategies.cluster_margin import ClusterMargin
from backend.strategies.coregcn import CoreGcn
from backend.strategies.coreset import CoreSet
from backend.strategies.cross_modal_similarity import CrossModalSimilarity
from backend.strategies.deepfool import DeepFool
from backend.strategies.dropquery import DropQuery
from backend.strategies.entropy import Entropy
from backend.strategies.kmeans import KMeans
from backend.strategies.kmeans_cold_start import KMeansColdStart
from backend.strategies.least_confidence import LeastConfidence
from backend.strategies.margin import Margin
from backend.strategies.maxherding import MaxHerding
from backend.strategies.pairing.audit import AuditedPairs
from backend.strategies.pairing.base import PairStrategy
from backend.strategies.pairing.hard_negative import HardNegative
from backend.strategies.pairing.pair_coreset import PairCoreSet
from backend.strategies.pairing.pair_likely import PairLikely
from backend.strategies.pairing.pair_margin import PairMargin
from backend.strategies.pairing.pair_mix import PairMix
from backend.strategies.pairing.pair_random import PairRandom
from backend.strategies.pairing.three_step import ThreeStep
from backend.strategies.probcover import ProbCover
from backend.strategies.query_bank import QueryBank
from backend.strategies.random_sampling import RandomSampling
from backend.strategies.typiclust import TypiClust
from backend.strategies.uherding import UHerding
from backend.strategies.uncertain_gcn import UncertainGcn

_REGISTERED: tuple[type[Strategy], ...] = (
    AlfaMix,
    Ascmr,
    Auto,
    Badge,
    Bald,
    Bmmal,
    Cdal,
    ClusterMargin,
    CoreGcn,
    CoreSet,
    CrossModalSimilarity,
    DeepFool,
    DropQuery,
    Entropy,
    KMeans,
    KMeansColdStart,
    LeastConfidence,
    Margin,
    MaxHerding,
    ProbCover,
    QueryBank,
    RandomSampling,
    TypiClust,
    UHerding,
    UncertainGcn,
)
_REGISTERED_FOR_PAIRS: tuple[type[PairStrategy], ...] = (
    HardNegative,
    PairCoreSet,
    PairLikely,
    PairMargin,
    PairMix,
    PairRandom,
    ThreeStep,
)
_BY_NAME: dict[str, type[Registered]] = {kind.name: kind for kind in (*_REGISTERED, *_REGISTERED_FOR_PAIRS)}


def strategy_names(*, pairs: bool = False) -> list[str]:
    """Names of the strategies that choose records to be classified, or of those that choose what to ask of two
    unpaired pools, in alphabetical order."""
    return sorted(name for name, kind in _BY_NAME.items() if ("pairs" in kind.needs) == pairs)


def strategy_class(name: str) -> type[Registered]:
    """The class behind a name; raises UnknownStrategy, which lists the known ones."""
    if name not in _BY_NAME:
        raise UnknownStrategy(
            f"strategy {name!r} does not exist; choose one of {', '.join(strategy_names())}; "
            f"where pools are paired one of {', '.join(strategy_names(pairs=True))}"
        )
    return _BY_NAME[name]


def describe(name: str) -> StrategyInfo:
    """Title, paper, needs, options with defaults, and complexity of a strategy; raises UnknownStrategy."""
    return strategy_class(name).info()


def create_strategy(name: str, *, balance: str = "none", audit_share: float = 0.0, **options: Any) -> Any:
    """A strategy with its options checked, and dressed where asked for: a ``Strategy``, or a ``PairStrategy`` where
    the name is one of ``strategy_names(pairs=True)``; its ``check`` refuses projects of the other kind.

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
    if not isinstance(strategy, Strategy):
        assert isinstance(strategy, PairStrategy)
        if balance != "none":
            raise StrategyUnsuited(
                f"balance={balance!r} serves classes and {name!r} pairs items, which have none; use balance='none'"
            )
        worn = AuditedPairs(inner=strategy, share=audit_share)
        return worn if audit_share else strategy
    if balance != "none":
        strategy = Balanced(strategy, balance)
    # Constructed for 0 as well: what is no share is refused there.
    audited = Audited(strategy, audit_share)
    return audited if audit_share else strategy
