"""Retrieval models by name: two members with one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from backend.errors import HeadStateInvalid, InvalidRetrievalOption, UnknownRetrievalModel
from backend.learners.late_fusion import LateFusionHead
from backend.learners.retrieval.ascmr_model import AscmrNetwork, AscmrOptions
from backend.learners.retrieval.options import RetrievalOptions
from backend.learners.retrieval.two_branch import TwoBranchHead, TwoBranchOptions


class RetrievalModel(Protocol):
    """A trained model: both modalities in one space, and a linear head on it (``strategies.pool.FusedHead``)."""

    @property
    def modalities(self) -> tuple[str, ...]: ...

    @property
    def width(self) -> int: ...

    @property
    def head(self) -> LateFusionHead: ...

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]: ...


_MODELS: Mapping[str, tuple[Any, type[RetrievalOptions]]] = {
    "ascmr_network": (AscmrNetwork, AscmrOptions),
    "two_branch": (TwoBranchHead, TwoBranchOptions),
}


@dataclass(frozen=True)
class RetrievalRecipe:
    """A model to be: its name, and options that were checked."""

    name: str
    options: RetrievalOptions

    def fit(
        self,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        seed: int = 0,
        labelled: np.ndarray | None = None,
    ) -> RetrievalModel:
        """The trained model, from scratch; arguments and errors as ``TwoBranchHead.fit``."""
        model: RetrievalModel = _MODELS[self.name][0].fit(
            features, labels, seed=seed, labelled=labelled, options=self.options
        )
        return model


def retrieval_model_names() -> list[str]:
    """Names that ``create_retrieval_model`` knows, in alphabetical order."""
    return sorted(_MODELS)


def create_retrieval_model(name: str, **options: Any) -> RetrievalRecipe:
    """A recipe whose ``fit`` trains the model; raises UnknownRetrievalModel and InvalidRetrievalOption."""
    if name not in _MODELS:
        raise UnknownRetrievalModel(
            f"retrieval model {name!r} does not exist; choose one of {', '.join(retrieval_model_names())}"
        )
    kind = _MODELS[name][1]
    known = [spec.name for spec in fields(kind)]
    for given in options:
        if given not in known:
            raise InvalidRetrievalOption(
                f"retrieval model {name!r} has no option {given!r}; it knows {', '.join(known)}"
            )
    return RetrievalRecipe(name, kind(**options))


def load_retrieval_model(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> RetrievalModel:
    """The model that ``state`` described, whichever it is; raises HeadStateInvalid."""
    kind = metadata.get("kind")
    if kind is None or kind not in _MODELS:
        raise HeadStateInvalid(f"kind is {kind!r}, expected one of {retrieval_model_names()}; retrain the model")
    model: RetrievalModel = _MODELS[kind][0].from_state(arrays, metadata)
    return model
