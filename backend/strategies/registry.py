"""The strategies by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backend.errors import UnknownOption, UnknownStrategy
from backend.strategies.auto import Auto
from backend.strategies.badge import Badge
from backend.strategies.base import Strategy, StrategyInfo
from backend.strategies.bmmal import Bmmal
from backend.strategies.entropy import Entropy
from backend.strategies.kmeans_cold_start import KMeansColdStart
from backend.strategies.least_confidence import LeastConfidence
from backend.strategies.margin import Margin
from backend.strategies.random_sampling import RandomSampling

_REGISTERED: tuple[type[Strategy], ...] = (
    Auto,
    Badge,
    Bmmal,
    Entropy,
    KMeansColdStart,
    LeastConfidence,
    Margin,
    RandomSampling,
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


def create_strategy(name: str, **options: Any) -> Strategy:
    """A strategy with its options checked; raises UnknownStrategy, UnknownOption or InvalidOption."""
    kind = strategy_class(name)
    known = [spec.name for spec in fields(kind)]
    for given in options:
        if given not in known:
            raise UnknownOption(
                f"strategy {name!r} has no option {given!r}; it knows {', '.join(known) if known else 'no options'}"
            )
    return kind(**options)
