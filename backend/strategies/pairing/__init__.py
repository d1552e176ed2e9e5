"""Which items of two unpaired pools are worth asking about. Arrays in, arrays out."""

from backend.strategies.pairing.base import PairStrategy
from backend.strategies.pairing.conformal import CandidateCount, conformal_candidates
from backend.strategies.pairing.pairs import MODALITIES, WHY, Pairs, PairSelection, Query, other
from backend.strategies.pairing.refusals import (
    COOL_DOWN,
    LONGEST_REST,
    one_of_each,
    places_of,
    rest_end,
    still_offered,
)
from backend.strategies.pairing.streams import (
    ItemStream,
    arrival_figures,
    farthest_of,
    item_figures,
    item_queries,
)

__all__ = [
    "COOL_DOWN",
    "LONGEST_REST",
    "MODALITIES",
    "WHY",
    "CandidateCount",
    "ItemStream",
    "PairSelection",
    "PairStrategy",
    "Pairs",
    "Query",
    "arrival_figures",
    "conformal_candidates",
    "farthest_of",
    "item_figures",
    "item_queries",
    "one_of_each",
    "other",
    "places_of",
    "rest_end",
    "still_offered",
]
