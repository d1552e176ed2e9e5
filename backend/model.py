"""The two hooks Label Studio's ML backends are known by: `predict` and `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from backend import logs
from backend.labelstudio.predictions import PredictionRow
from backend.official_base import official_base
from backend.rounds.answering import Answerer
from backend.rounds.connecting import connect
from backend.rounds.publishing import live_version
from backend.rounds.services import Services
from backend.settings import load_settings
from backend.store import events, projects

_Base: Any = official_base()


@lru_cache
def _shared() -> tuple[Services, Answerer]:
    services = Services(load_settings())
    return services, Answerer(services)


class MultimodalActiveLearner(_Base):
    """Ranks image-text tasks by the project's acquisition strategy and learns from every answer.

    Keeps the contract of ``label_studio_ml.model.LabelStudioMLBase`` 2.x and derives from it where that is installed:
    constructed anew for each request with `project_id` and `label_config`. It holds no state; `backend.rounds` does
    the work in the worker process. Our own server and the official one (`backend/_wsgi.py`) call the same hooks.
    """

    def __init__(
        self,
        project_id: str | int | None = None,
        label_config: str | None = None,
        shared: tuple[Services, Answerer] | None = None,
    ) -> None:
        # Without the constructor of LabelStudioMLBase: at each request it would write the label config into a cache
        # of its own, one for each process, and this class reads nothing from there.
        self.project_id = read_project_id(project_id)
        logs.bind(project_id=self.project_id)
        # `label_config` and `extra_params` are read-only properties of LabelStudioMLBase.
        self._label_config = label_config or ""
        self._extra_params: Any = None
        self.services, self.answerer = shared or _shared()

    def set_extra_params(self, extra_params: Any) -> None:
        """Keep what /setup brought along, text or object, until the project is connected."""
        self._extra_params = extra_params

    def get(self, key: str) -> str | None:
        """The one thing a server asks for, `model_version`: connects the project, as /setup wants, and names it.

        Raises
        ------
        ConfigurationError
            Options that cannot be used; nothing was changed.
        LabelConfigUnsupported, ForeignPredictions
        """
        if key != "model_version":
            return None
        return live_version(connect(self.services, self.project_id, self._label_config, self._extra_params).version)

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
        if projects.find(self.services.store, self.project_id) is None:
            # Nothing to learn for: a project that was never connected, or another system's event.
            return {"status": "ignored", "detail": f"project {self.project_id} is not connected to this backend"}
        events.add(self.services.store, self.project_id, event)
        return {"status": "noted"}


def read_project_id(value: str | int | None) -> int:
    """The number in what Label Studio calls a project: ``7``, ``"7"`` or ``"7.1795314306"``; 0 when there is none."""
    head = str(value or 0).split(".")[0]
    number = int(head) if head.isdecimal() and len(head) <= 10 else 0
    return number if number <= projects.LARGEST_ID else 0
