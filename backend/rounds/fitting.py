"""Step 3: the arrays of a round, and the head fitted on its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.schema import TaskSchema
from backend.learners import LateFusionHead
from backend.rounds.services import Services
from backend.store import tasks


@dataclass(frozen=True)
class RoundArrays:
    """Labelled tasks and pool of a project as arrays, row by row the same task.

    Attributes
    ----------
    task_ids : (n,) int64
    features : modality -> (n, D) float16, zero rows where the modality is absent
    labels : (n,) int64 with -1 for the pool, or (n, C) int8 for several labels
    labelled : (n,) bool
    """

    task_ids: NDArray[np.int64]
    features: dict[str, NDArray[np.float16]]
    labels: NDArray[np.integer]
    labelled: NDArray[np.bool_]


def load_arrays(services: Services, project_id: int, schema: TaskSchema) -> RoundArrays:
    """Read what is embedded: every labelled task, and the tasks nobody has answered.

    A label that names a choice the label config no longer has is left out until it is read again.
    """
    position = {choice: i for i, choice in enumerate(schema.choices)}
    rows = [
        row
        for row in tasks.vector_rows(services.store, project_id, services.encoder_id)
        if row.label_kind != "label" or position.keys() >= set(row.label)
    ]
    task_ids = np.array([row.task_id for row in rows], np.int64)
    labelled: NDArray[np.bool_] = np.fromiter((row.label_kind == "label" for row in rows), np.bool_, len(rows))
    classes = [[position[choice] for choice in row.label] if row.label_kind == "label" else [] for row in rows]
    labels: NDArray[np.integer]
    if schema.multi_label:
        labels = np.zeros((len(rows), len(position)), np.int8)
        for i, picked in enumerate(classes):
            labels[i, picked] = 1
    else:
        labels = np.array([picked[0] if picked else -1 for picked in classes], np.int64)
    return RoundArrays(task_ids, gather(services, schema, rows), labels, labelled)


def gather(services: Services, schema: TaskSchema, rows: Sequence[tasks.VectorRow]) -> dict[str, NDArray[np.float16]]:
    """Vectors of rows of `tasks.vector_rows`, for the modalities the label config has."""
    vectors = services.vectors()
    if vectors is None:
        return {}
    found = {"image": [row.image_row for row in rows], "text": [row.text_row for row in rows]}
    return {m: vectors.gather(m, np.array(found[m], np.int64)) for m in schema.modalities}


def fit_head(arrays: RoundArrays, schema: TaskSchema, seed: int) -> LateFusionHead | None:
    """The late-fusion head on all labels; None while there is no label."""
    if not arrays.labelled.any():
        return None
    chosen = {m: np.asarray(x[arrays.labelled], np.float32) for m, x in arrays.features.items()}
    return LateFusionHead.fit(
        chosen,
        arrays.labels[arrays.labelled],
        n_classes=len(schema.choices),
        multi_label=schema.multi_label,
        seed=seed,
    )


def likeliest_answer(p: NDArray[np.floating], schema: TaskSchema) -> tuple[list[str], float] | None:
    """The head's answer to one task and its probability; None where no choice of several is likely."""
    picked = np.flatnonzero(p >= 0.5) if schema.multi_label else [int(np.argmax(p))]
    if len(picked) == 0:
        return None
    return [schema.choices[i] for i in picked], float(min(p[i] for i in picked))
