"""Acquisition strategies: which unlabelled record is worth the next label. Arrays in, arrays out."""

from backend.strategies.base import Selection, Strategy, StrategyInfo
from backend.strategies.pairing import Pairs, PairSelection, PairStrategy, Query
from backend.strategies.pool import FusedHead, Pool
from backend.strategies.registry import create_strategy, describe, strategy_names

__all__ = [
    "FusedHead",
    "PairSelection",
    "PairStrategy",
    "Pairs",
    "Pool",
    "Query",
    "Selection",
    "Strategy",
    "StrategyInfo",
    "create_strategy",
    "describe",
    "strategy_names",
]
