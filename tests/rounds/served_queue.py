"""A Label Studio in memory that orders by predictions: what whole rounds need of it, without a server."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from backend.errors import LabelStudioUnreachable
from backend.labelstudio.records import ProjectInfo
from backend.rounds.embedding import embed_chunk
from backend.rounds.pipeline import run_round
from backend.rounds.services import Services
from backend.store import projects
from backend.store.tables import Round
from tests.rounds.test_config_changes import LabelStudioOf, read_once


class ServedQueue(LabelStudioOf):
    """One project, the versions it holds and the one it serves; deleting fails while `undeletable`."""

    undeletable = False

    def __init__(self, label_config: str) -> None:
        super().__init__(label_config)
        self.serving = ""
        self.rows: list[Mapping[str, Any]] = []

    def project(self, project_id: int) -> ProjectInfo:
        told = super().project(project_id)
        return ProjectInfo(**{**vars(told), "model_version": self.serving})

    def import_predictions(self, project_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows += rows

    def set_model_version(self, project_id: int, version: str) -> None:
        self.serving = version

    def model_versions(self, project_id: int) -> dict[str, int]:
        versions = [row["model_version"] for row in self.rows]
        return {version: versions.count(version) for version in versions}

    def delete_model_version(self, project_id: int, version: str) -> None:
        if self.undeletable:
            raise LabelStudioUnreachable(f"deleting {version} took too long")
        self.rows = [row for row in self.rows if row["model_version"] != version]

    def delete_predictions_of(self, project_id: int, task_ids: Collection[int]) -> None:
        self.rows = [row for row in self.rows if row["task"] not in task_ids]

    def write_field(self, project_id: int, task_ids: Iterable[int], key: str, value: str) -> None:
        """Reasons are nobody's business here."""

    def update_project(self, project_id: int, **fields: Any) -> None:
        """What annotators are shown beside the queue is nobody's business here either."""

    def webhooks(self, project_id: int) -> list[Any]:
        return []


def connected_queue(services: Services, label_config: str, **options: Any) -> ServedQueue:
    """A project that is attached, read and embedded, and has no queue yet."""
    told = ServedQueue(label_config)
    read_once(services, told, **options)
    while embed_chunk(services, 1):
        pass
    return told


def round_for(services: Services, why: str, **how: Any) -> Round | None:
    """Ask for a round, whatever pause there is, and run it."""
    projects.request_round(services.store, 1, why, at_once=True)
    return run_round(services, 1, "a worker", **how)
