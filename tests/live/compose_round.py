"""One round through the services of docker-compose.yml, whatever runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.schema import TaskSchema
from tests.live.backend_process import wait_for
from tests.live.pool import CONFIG, make_tasks

BATCH = 4


class Stack(Protocol):
    """The services of the compose file, running."""

    services: dict[str, dict[str, Any]]

    def url(self, name: str) -> str:
        """Where a service is reached from here."""

    def run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec NAME COMMAND` does."""

    def healthy(self, name: str) -> bool:
        """What the service's health check says."""


def status(stack: Stack) -> dict[str, Any]:
    """Of the only project; asked of `web`, which no test kills."""
    found: dict[str, Any] = json.loads(stack.run("web", ["mmal", "status", "--json"]).stdout)[0]
    return found


def label_studio(stack: Stack, variables: Mapping[str, str]) -> LabelStudio:
    return LabelStudio(stack.url("label-studio"), variables["LABEL_STUDIO_USER_TOKEN"])


def attach_a_project(stack: Stack, client: LabelStudio) -> int:
    """Thirty small tasks with a first queue in force; the project's number."""
    project = client.create_project("Team", CONFIG)
    client.import_tasks(project.id, make_tasks(30))
    attached = stack.run("web", ["mmal", "project", "attach", "--project", str(project.id)])
    assert attached.returncode == 0, attached.stderr
    stack.run("web", ["mmal", "project", "options", "--project", str(project.id), f"batch_size={BATCH}"])
    wait_for("the first queue", lambda: client.project(project.id).model_version or "")
    return project.id


def answer_until_learnt(stack: Stack, client: LabelStudio, project_id: int) -> None:
    """Answer one batch; until a round learnt from it and published a new queue."""
    before, learnt_before = client.project(project_id).model_version, status(stack)["labels"]
    schema = TaskSchema.from_label_config(CONFIG)
    for _ in range(BATCH):
        served = client.next_task(project_id)
        assert served is not None
        client.answer(served, schema, [served.data["truth"]])

    def learnt() -> bool:
        now = status(stack)
        assert now["last_error"] == ""
        return bool(
            now["labels"] == learnt_before + BATCH and now["unfitted_labels"] == 0 and not now["round_running"]
        )

    wait_for("a round that learnt from the answers", learnt, pause=1)
    assert client.project(project_id).model_version not in ("", before)
