"""The model of a project, whichever its learner: fitted in a round, saved, loaded again to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from backend.labelstudio.schema import TaskSchema
from backend.learners import LateFusionHead
from backend.learners.alignment import KIND as ALIGNMENT
from backend.learners.alignment import AlignmentHead
from backend.learners.projection import ProjectionHead
from backend.learners.retrieval import create_retrieval_model, load_retrieval_model, retrieval_model_names
from backend.learners.warm_start import shipped_warm_start
from backend.rounds.fitting import RoundArrays, fit_head
from backend.rounds.options import ProjectOptions, matching_classes
from backend.rounds.services import Services
from backend.store import rounds

State = tuple[dict[str, np.ndarray], dict[str, str]]


class RoundModel(Protocol):
    """Vectors of records -> the space a strategy works in, and a linear head on it."""

    @property
    def head(self) -> LateFusionHead: ...

    def embed(self, features: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...

    def state(self) -> State: ...


@dataclass(frozen=True)
class FrozenSpace:
    """A head on the frozen vectors as they are."""

    head: LateFusionHead

    def embed(self, features: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The vectors themselves."""
        return features

    def state(self) -> State:
        """That of the head."""
        return self.head.state()


def fit_model(
    services: Services, arrays: RoundArrays, schema: TaskSchema, options: ProjectOptions, seed: int
) -> RoundModel | None:
    """The project's learner on all labels; None while there is no label."""
    if not arrays.labelled.any():
        return None
    if options.learner == "late_fusion":
        head = fit_head(arrays, schema, seed)
        return None if head is None else FrozenSpace(head)
    if options.learner == "alignment":
        return AlignmentHead.fit(
            arrays.features,
            arrays.labels,
            n_classes=len(schema.choices),
            start=joint_start(services, arrays.features) or ProjectionHead.random(arrays.features),
            matching=matching_classes(options, schema),
            labelled=arrays.labelled,
            seed=seed,
        )
    recipe = create_retrieval_model(options.learner)
    return recipe.fit(arrays.features, arrays.labels, seed=seed, labelled=arrays.labelled)


def load_model(path: Path) -> RoundModel:
    """The model that a round saved; raises HeadStateInvalid."""
    arrays, metadata = rounds.load_head(path)
    kind = metadata.get("kind")
    if kind == ALIGNMENT:
        return AlignmentHead.from_state(arrays, metadata)
    if kind in retrieval_model_names():
        return load_retrieval_model(arrays, metadata)
    return FrozenSpace(LateFusionHead.from_state(arrays, metadata))


def joint_start(services: Services, features: Mapping[str, np.ndarray]) -> ProjectionHead | None:
    """Where the shared space begins: the encoder's own, the projection shipped for the encoder, or None."""
    if services.has_joint_space:
        return ProjectionHead.identity(features["image"].shape[1])
    return shipped_warm_start(services.encoder_id)
