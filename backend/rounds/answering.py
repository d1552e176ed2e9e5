"""What /predict and the form of a task are told: from the store, within a time budget, always a valid answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.labelstudio.predictions import PredictionRow, live_result
from backend.labelstudio.schema import TaskSchema
from backend.rounds.fitting import gather, likeliest_answer
from backend.rounds.models import RoundModel, load_model
from backend.rounds.publishing import live_version
from backend.rounds.services import Services, options_of, schema_of
from backend.store import rounds, tasks
from backend.store.tables import Project

log = logging.getLogger(__name__)

# For tasks of which nothing is known yet: the middle, so that they sort neither first nor last.
UNKNOWN_SCORE = 0.5
LAST_SCORE = 0.999999
PAUSE = 0.1


class Answerer:
    """Answers for tasks, with the model of the round in force; models are read once a version."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._lock = threading.Lock()
        self._models: dict[Path, RoundModel] = {}

    def answer(self, project: Project, asked: Sequence[Mapping[str, Any]]) -> list[PredictionRow]:
        """One prediction a task, in their order.

        The score is low for tasks whose answer tells much: the margin between the two likeliest answers.
        The answer itself is handed out only where the project pre-fills answers.
        """
        schema = schema_of(project)
        version = live_version(project.version)
        model = None if schema.kind == "pairing" else self._model(project, schema)
        if model is None:
            return [live_result(version, UNKNOWN_SCORE, schema) for _ in asked]
        probabilities = self._probabilities(project, schema, model, asked)
        prefill = options_of(project).prelabel
        rows = []
        for task in asked:
            p = probabilities.get(_task_id(task) or 0)
            if p is None:
                rows.append(live_result(version, UNKNOWN_SCORE, schema))
                continue
            answer, confidence = (likeliest_answer(p, schema) if prefill else None) or (None, None)
            rows.append(live_result(version, _margin(p, schema), schema, answer, confidence))
        return rows

    def _probabilities(
        self, project: Project, schema: TaskSchema, model: RoundModel, asked: Sequence[Mapping[str, Any]]
    ) -> dict[int, np.ndarray]:
        ids = [task_id for task in asked if (task_id := _task_id(task)) is not None]
        rows = tasks.vector_rows(self.services.store, project.id, self.services.encoder_id, ids)
        missing = set(ids) - {row.task_id for row in rows}
        if missing:
            self._hurry(project, schema, [task for task in asked if _task_id(task) in missing])
            rows = self._wait_for(project, ids)
        if not rows:
            return {}
        features = {m: x.astype(np.float32) for m, x in gather(self.services, schema, rows).items()}
        probabilities = model.head.probabilities(model.embed(features))
        return {row.task_id: p for row, p in zip(rows, probabilities, strict=True)}

    def _hurry(self, project: Project, schema: TaskSchema, asked: Sequence[Mapping[str, Any]]) -> None:
        """Put tasks that are not embedded at the head of the worker's list."""
        inputs = [
            tasks.Inputs(int(task["id"]), schema.image_of(data) or "", schema.text_of(data) or "")
            for task in asked
            if isinstance(data := task.get("data"), Mapping)
        ]
        tasks.remember(self.services.store, project.id, inputs, urgent=True)

    def _wait_for(self, project: Project, ids: list[int]) -> list[tasks.VectorRow]:
        until = time.monotonic() + self.services.settings.predict_seconds
        while True:
            rows = tasks.vector_rows(self.services.store, project.id, self.services.encoder_id, ids)
            if len(rows) == len(set(ids)) or time.monotonic() >= until:
                return rows
            time.sleep(PAUSE)

    def _model(self, project: Project, schema: TaskSchema) -> RoundModel | None:
        in_force = rounds.in_force(self.services.store, project)
        # Under another label config its answers would mean something else.
        if in_force is None or not in_force.head or in_force.schema_hash != schema.config_hash:
            return None
        path = self.services.store.data_dir / in_force.head
        with self._lock:
            if path not in self._models:
                if not path.exists():
                    log.warning("project %s: head %s is missing; answering without", project.id, in_force.head)
                    return None
                self._models = {path: load_model(path), **self._models}
                self._models = dict(list(self._models.items())[:16])
            return self._models[path]


def _task_id(task: Mapping[str, Any]) -> int | None:
    value = task.get("id")
    # Numbers that a database can count to.
    return value if type(value) is int and 0 < value < 2**63 else None


def _margin(p: np.ndarray, schema: TaskSchema) -> float:
    if schema.multi_label:
        margin = float(np.abs(2 * p - 1).min())
    elif len(p) < 2:
        margin = 1.0
    else:
        second, first = np.partition(p, -2)[-2:]
        margin = float(first - second)
    return min(max(margin, 0.0), LAST_SCORE)
