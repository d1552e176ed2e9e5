"""The loop under `label-studio-ml start backend`, with the real package where that is installed, else the stand-in.

The project is hardly ever looked at unasked (`poll_seconds`), so what is learnt here came by events.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import requests

from backend.errors import LabelStudioRefused
from backend.labelstudio.local_server import LocalLabelStudio
from tests.live.backend_process import wait_for
from tests.live.loop import Loop
from tests.live.pool import make_tasks
from tests.official_package import REPOSITORY, installed, python_path

pytestmark = pytest.mark.live

PASSWORD = ("studio", "s3cret")
OPTIONS = {"batch_size": 8, "queue_size": 40, "poll_seconds": 3600, "refresh_share": 1.0}
REGION = {"from_name": "tone", "to_name": "picture", "type": "choices"}


def under_the_official_server(server: LocalLabelStudio, folder: Path) -> Loop:
    environment = {
        "PYTHONPATH": python_path({}, stand_in=not installed()),
        # `label-studio-ml start` makes a cache in the working folder, and runs whichever python comes first.
        "MODEL_DIR": str(folder),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **dict(zip(("BASIC_AUTH_USER", "BASIC_AUTH_PASS"), PASSWORD, strict=True)),
    }
    loop = Loop(server, folder, tasks=90, options=OPTIONS, environment=environment)
    start = [sys.executable, "-m", "label_studio_ml.server", "start", str(REPOSITORY / "backend")]
    loop.backend.commands["web"] = [*start, "-p", str(loop.backend.port)]
    return loop


def test_every_answer_is_learnt_and_the_queue_follows(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with under_the_official_server(label_studio, tmp_path) as loop:
        version = loop.wait_for_version()
        expected: dict[int, str] = {}

        def label(count: int) -> None:
            for _ in range(count):
                served = loop.label_next()
                expected[served.id] = served.data["truth"]

        def learnt() -> bool:
            return loop.training_set() == expected

        label(8)
        version = loop.wait_for_version(after=version)
        wait_for("the answers", learnt)

        # Of these the official server tells a model nothing.
        first, second, *others = expected
        [made] = loop.client.task(first).annotations or ()
        loop.client.update_annotation(made["id"], result=[{**REGION, "value": {"choices": ["grey"]}}])
        expected[first] = "grey"
        loop.client.delete_annotations_of(loop.project_id, [second, *others[:2]])
        for task_id in (second, *others[:2]):
            del expected[task_id]
        brought = [
            {"data": data, "annotations": [{"result": [{**REGION, "value": {"choices": [data["truth"]]}}]}]}
            for data in make_tasks(4, seed=1)
        ]
        for task_id, row in zip(loop.client.import_tasks(loop.project_id, brought), brought, strict=True):
            expected[task_id] = row["data"]["truth"]  # type: ignore[index]
        wait_for("what was changed, deleted and brought along", learnt)
        loop.settle()

        version = loop.project.version
        [connection] = loop.client.ml_backends(loop.project_id)
        loop.client.start_training(connection.id)
        version = loop.wait_for_version(after=version)
        loop.client.update_backend(connection, options={"strategy": "margin", "batch_size": 8})
        version = loop.wait_for_version(after=version)
        assert version.endswith("-margin")
        with pytest.raises(LabelStudioRefused, match="strategy 'bold' does not exist; choose one of"):
            loop.client.update_backend(connection, options={"strategy": "bold"})
        assert requests.post(f"{loop.backend.url}/setup", json={}, timeout=10).status_code == 401

        label(3)
        loop.backend.kill9("web")
        label(2)
        loop.backend.start("web")
        loop.backend.kill9("worker")
        label(3)
        loop.backend.start("worker")
        loop.wait_for_version(after=version)
        wait_for("the answers given meanwhile", learnt)
        assert loop.served_order() == loop.queued_ids()
        assert not expected.keys() & set(loop.queued_ids())
        assert loop.status.rounds_failed == 0
