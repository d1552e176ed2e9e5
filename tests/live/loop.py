"""One project, one backend, one Label Studio: what most tests of the loop start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.labelstudio.client import LabelStudio, ServedTask
from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.schema import TaskSchema
from backend.rounds.connecting import attach_project, set_options
from backend.rounds.status import ProjectStatus, project_status
from backend.store import projects, rounds, tasks
from backend.store.tables import Project, QueueEntry
from tests.live.backend_process import PATIENCE, BackendProcess, wait_for
from tests.live.label_studio import AnnotatorClient
from tests.live.pool import CONFIG, make_tasks


class Loop:
    """A running loop and what an annotator and an admin do to it.

    The annotator answers with the truth that lies hidden in the task.
    """

    def __init__(
        self,
        server: LocalLabelStudio,
        folder: Path,
        *,
        tasks: int = 120,
        config: str = CONFIG,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        data: list[dict[str, Any]] | None = None,
    ) -> None:
        self.server = server
        self.client = AnnotatorClient(server.url, server.admin.token)
        # The config comes after the tasks: Label Studio refuses to import tasks without its fields, yet projects
        # whose config changed later have them.
        self.project_id = self.client.create_project(folder.name[:50], "<View></View>").id
        self.task_ids = self.client.import_tasks(self.project_id, data if data is not None else make_tasks(tasks))
        self.client.update_project(self.project_id, label_config=config)
        self.schema = TaskSchema.from_label_config(config)
        self.backend = BackendProcess(folder / "backend", server.url, server.admin.token, environment)
        self.services = self.backend.services()
        self.options = dict(options or {})

    def __enter__(self) -> Loop:
        self.backend.start("web")
        try:
            attach_project(self.services, self.project_id)
            if self.options:
                set_options(self.services, self.project_id, self.options, "the test")
            self.backend.start("worker")
        except BaseException:
            self.backend.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.backend.stop()

    # What the store says ------------------------------------------------------------------------------------

    @property
    def project(self) -> Project:
        return projects.get(self.services.store, self.project_id)

    @property
    def status(self) -> ProjectStatus:
        return project_status(self.services, self.project)

    def queue(self) -> list[QueueEntry]:
        in_force = rounds.in_force(self.services.store, self.project)
        return rounds.queue(self.services.store, in_force.id) if in_force else []

    def queued_ids(self) -> list[int]:
        return [entry.task_id for entry in self.queue()]

    def served_order(self) -> list[int]:
        """Tasks of the version in force in Label Studio, in the order of their scores."""
        version = self.client.project(self.project_id).model_version
        assert version
        rows = self.client.stored_predictions(self.project_id, version)
        return [row.task_id for row in sorted(rows, key=lambda row: row.score or 0.0)]

    def training_set(self) -> dict[int, str]:
        """Task id to the label that the next round learns."""
        rows = tasks.vector_rows(self.services.store, self.project_id, self.services.encoder_id)
        labelled = [(row.task_id, row.label[0]) for row in rows if row.label_kind == "label"]
        assert len(labelled) == len(dict(labelled)), "a task stands in the training set twice"
        return dict(labelled)

    # Waiting ------------------------------------------------------------------------------------------------

    def wait_for_version(self, after: str = "", seconds: float = PATIENCE) -> str:
        """The next version in force, once everything behind it has settled."""
        wait_for(f"a version after {after!r}", lambda: self.project.version not in ("", after), seconds)
        self.settle(seconds)
        return self.project.version

    def settle(self, seconds: float = PATIENCE) -> None:
        """Nothing is running, asked for or left to embed."""

        def quiet() -> bool:
            status = self.status
            return not (status.round_running or status.round_requested) and status.embedded == status.tasks

        wait_for("the worker to come to rest", quiet, seconds)

    def ask_for_round(self) -> str:
        """Ask for a round and wait until its queue is in force."""
        version = self.project.version
        projects.request_round(self.services.store, self.project_id, "the test", at_once=True)
        return self.wait_for_version(after=version)

    def wait_for_labels(self, count: int, seconds: float = PATIENCE) -> None:
        wait_for(f"{count} labels in the training set", lambda: self.status.labels == count, seconds)

    # What people do -----------------------------------------------------------------------------------------

    def label_next(self, client: LabelStudio | None = None) -> ServedTask:
        """Take the task Label Studio serves next and answer it with the truth."""
        annotator = client or self.client
        served = annotator.next_task(self.project_id)
        assert served is not None, "Label Studio has no task left"
        self.answer(served, annotator)
        return served

    def answer(self, served: ServedTask, annotator: LabelStudio | None = None) -> None:
        (annotator or self.client).answer(served, self.schema, [served.data["truth"]])

    def label_batch(self, count: int) -> list[int]:
        return [self.label_next().id for _ in range(count)]
