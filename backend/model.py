"""The two hooks Label Studio's ML backends are known by: `predict` and `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from backend.labelstudio.predictions import PredictionRow
from backend.rounds.answering import Answerer
from backend.rounds.services import Services
from backend.settings import load_settings
from backend.store import events, projects

# Triggers that Label Studio sends to `/webhook` and `/events`; others are noted all the same.
START_TRAINING = "START_TRAINING"


@lru_cache
def _shared() -> tuple[Services, Answerer]:
    services = Services(load_settings())
    return services, Answerer(services)


class MultimodalActiveLearner:
    """Ranks image-text tasks by the project's acquisition strategy and learns from every answer.

    The contract of ``label_studio_ml.model.LabelStudioMLBase`` 2.x: constructed a request with `project_id` and
    `label_config`. It holds no state; `backend.rounds` does the work in the worker process.
    """

    def __init__(
        self,
        project_id: str | int | None = None,
        label_config: str | None = None,
        shared: tuple[Services, Answerer] | None = None,
    ) -> None:
        self.project_id = read_project_id(project_id)
        self.label_config = label_config
        self.services, self.answerer = shared or _shared()

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[PredictionRow]:
        """One valid prediction a task, in their order, within the time budget of the settings.

        Raises
        ------
        ProjectUnknown
            Before the project's first /setup.
        """
        del context, kwargs
        return self.answerer.answer(projects.get(self.services.store, self.project_id), tasks)

    def fit(self, event: str, data: Mapping[str, Any] | None = None, **kwargs: Any) -> dict[str, str]:
        """Note the event and return at once; the worker looks at Label Studio and trains."""
        del data, kwargs
        events.add(self.services.store, self.project_id, event)
        return {"status": "noted"}


def read_project_id(value: str | int | None) -> int:
    """The number in what Label Studio calls a project: ``7``, ``"7"`` or ``"7.1795314306"``; 0 when there is none."""
    head = str(value or 0).split(".")[0]
    return int(head) if head.isdecimal() else 0
