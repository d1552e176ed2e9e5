"""The services of the compose file work together; see `compose_processes` for what stands in for containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.schema import TaskSchema
from tests.container_files import filled_in
from tests.live.backend_process import wait_for
from tests.live.compose_processes import ComposeProcesses
from tests.live.pool import CONFIG, make_tasks

pytestmark = pytest.mark.live


def test_one_round_goes_through_every_service_of_the_compose_file(tmp_path: Path) -> None:
    variables = {**filled_in(), "MMAL_ENCODER": "import:tests.live.toy_encoder:make"}
    with ComposeProcesses(tmp_path, variables) as stack:
        client = LabelStudio(stack.url("label-studio"), variables["LABEL_STUDIO_USER_TOKEN"])
        project = client.create_project("Team", CONFIG)
        client.import_tasks(project.id, make_tasks(30))

        attached = stack.run("web", ["mmal", "project", "attach", "--project", str(project.id)])
        assert attached.returncode == 0, attached.stderr
        stack.run("web", ["mmal", "project", "options", "--project", str(project.id), "batch_size=4"])
        first = wait_for("the first queue", lambda: client.project(project.id).model_version or "")

        schema = TaskSchema.from_label_config(CONFIG)
        for _ in range(4):
            served = client.next_task(project.id)
            assert served is not None
            client.answer(served, schema, [served.data["truth"]])

        def learnt() -> bool:
            status = json.loads(stack.run("worker", ["mmal", "status", "--json"]).stdout)[0]
            assert status["last_error"] == ""
            return bool(status["labels"] == 4 and status["unfitted_labels"] == 0 and not status["round_running"])

        wait_for("a round that learnt from the answers", learnt, pause=1)
        assert client.project(project.id).model_version not in ("", first)
        assert all(stack.healthy(name) for name in stack.services)
        # Label Studio carried the password; a stranger is asked for it.
        assert requests.post(f"{stack.url('web')}/setup", json={}, timeout=10).status_code == 401
        stack.stop()
        assert not any(stack.healthy(name) for name in ("postgres", "redis", "label-studio", "web"))
