"""What a project has been taught so far, as arrays: what a replay of its own labels starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.errors import ReplayInvalid
from backend.rounds.fitting import load_arrays
from backend.rounds.services import Services, options_of, schema_of
from backend.store import projects, tasks


@dataclass(frozen=True)
class ProjectLabels:
    """Row i of everything is one labelled task.

    Attributes
    ----------
    features : modality -> (n, D_m) float32 unit rows, zero row where absent
    labels : (n,) int64 index into `choices`, or (n, C) int8 0/1 where annotators may tick several
    texts, images : what the task shows, an empty string where absent
    learner : the one that the project has
    """

    features: dict[str, NDArray[np.float32]]
    labels: NDArray[np.integer]
    choices: Sequence[str]
    texts: Sequence[str]
    images: Sequence[str]
    learner: str


def labels_of_project(services: Services, project_id: int) -> ProjectLabels:
    """The labelled tasks of a project as the store has them; Label Studio need not run.

    Raises
    ------
    ProjectUnknown, LabelConfigUnsupported
    ReplayInvalid
        The project asks for pairs, or has no label with a vector.
    """
    project = projects.get(services.store, project_id)
    schema = schema_of(project)
    if schema.kind == "pairing":
        raise ReplayInvalid(
            f"project {project_id} asks for pairs, and replays know only which labels were given; "
            "`mmal simulate --task pairing` replays the sets that come with this project"
        )
    arrays = load_arrays(services, project_id, schema)
    if not arrays.features or not arrays.labelled.any():
        raise ReplayInvalid(
            f"project {project_id} has no label with a vector under {services.encoder_id} in the store; run"
            " `mmal worker` until its tasks are read and embedded (`mmal status`), or use the encoder they have"
        )
    rows = np.flatnonzero(arrays.labelled)
    inputs = tasks.inputs_of(services.store, project_id, arrays.task_ids[rows].tolist())
    return ProjectLabels(
        {m: np.asarray(x[rows], np.float32) for m, x in arrays.features.items()},
        arrays.labels[rows],
        schema.choices,
        [item.text for item in inputs],
        [item.image for item in inputs],
        options_of(project).learner,
    )
