"""Models that put images and texts into one space under class labels, and how well they retrieve.

Importing this package never imports torch; the ASCMR authors' network needs it for training.
"""

from backend.learners.retrieval.ascmr_model import AscmrNetwork, AscmrOptions
from backend.learners.retrieval.models import (
    RetrievalModel,
    RetrievalRecipe,
    create_retrieval_model,
    load_retrieval_model,
    retrieval_model_names,
)
from backend.learners.retrieval.scores import RetrievalScore, TwoWayScore, mean_average_precision, two_way_score
from backend.learners.retrieval.two_branch import TwoBranchHead, TwoBranchOptions

__all__ = [
    "AscmrNetwork",
    "AscmrOptions",
    "RetrievalModel",
    "RetrievalRecipe",
    "RetrievalScore",
    "TwoBranchHead",
    "TwoBranchOptions",
    "TwoWayScore",
    "create_retrieval_model",
    "load_retrieval_model",
    "mean_average_precision",
    "retrieval_model_names",
    "two_way_score",
]
