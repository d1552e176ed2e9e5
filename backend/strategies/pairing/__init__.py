"""Which items of two unpaired pools are worth asking about. Arrays in, arrays out."""

from backend.strategies.pairing.base import PairStrategy
from backend.strategies.pairing.conformal import CandidateCount, conformal_candidates
from backend.strategies.pairing.pairs import MODALITIES, WHY, Pairs, PairSelection, Query, other
from backend.strategies.pairing.streams import BufferedStream, ItemStream, buffer_pairs, farthest_of, item_figures

__all__ = [
    "MODALITIES",
    "WHY",
    "BufferedStream",
    "CandidateCount",
    "ItemStream",
    "PairSelection",
    "PairStrategy",
    "Pairs",
    "Query",
    "buffer_pairs",
    "conformal_candidates",
    "farthest_of",
    "item_figures",
    "other",
]
