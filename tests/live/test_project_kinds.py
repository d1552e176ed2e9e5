"""Whatever one image, one text and one Choices control can be combined to: the loop learns and ranks it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from backend.labelstudio.local_server import LocalLabelStudio
from backend.store import rounds
from tests.live.backend_process import wait_for
from tests.live.loop import Loop
from tests.live.pool import CONFIG, MULTI_CONFIG, make_tasks

pytestmark = pytest.mark.live

# A queue of less than three batches would be topped up before its first batch is through.
OPTIONS = {"batch_size": 8, "queue_size": 30, "refresh_share": 1.0}
IMAGE_ONLY = CONFIG.replace('<Text name="words" value="$title"/>', "")
TEXT_ONLY = CONFIG.replace('<Image name="picture" value="$photo"/>', "").replace('toName="picture"', 'toName="words"')
ALIASED = CONFIG.replace('<Choice value="warm"/>', '<Choice value="A warm tone" alias="warm"/>')


@pytest.mark.parametrize(
    ("config", "strategy"),
    [(IMAGE_ONLY, "auto"), (TEXT_ONLY, "badge"), (ALIASED, "auto"), (MULTI_CONFIG, "auto"), (MULTI_CONFIG, "bmmal")],
    ids=["image only", "text only", "alias", "several answers", "several answers by bmmal"],
)
def test_two_batches_are_served_in_order_and_learnt(
    label_studio: LocalLabelStudio, tmp_path: Path, config: str, strategy: str
) -> None:
    with Loop(label_studio, tmp_path, tasks=50, config=config, options={**OPTIONS, "strategy": strategy}) as loop:
        version = ""
        for number in range(2):
            version = loop.wait_for_version(after=version)
            queue = loop.queued_ids()
            served = []
            for position in range(8):
                task = loop.client.next_task(loop.project_id)
                assert task is not None
                served.append(task.id)
                answer = [task.data["truth"]]
                if loop.schema.multi_label:
                    # Some tasks carry two answers and some none.
                    answer = [[], answer, [*answer, "grey"]][position % 3] if number else answer
                loop.client.submit(task.id, loop.schema, list(dict.fromkeys(answer)))
            assert served == queue[:8]
        loop.wait_for_version(after=version)
        [latest] = rounds.of_project(loop.services.store, loop.project_id, limit=1)
        assert latest.counts["labels"] == 16
        assert latest.head


def test_one_class_seen_is_enough_to_go_on(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with Loop(label_studio, tmp_path, tasks=40, options=OPTIONS) as loop:
        version = loop.wait_for_version()
        for _ in range(8):
            task = loop.client.next_task(loop.project_id)
            assert task is not None
            loop.client.submit(task.id, loop.schema, ["grey"])
        loop.wait_for_version(after=version)
        assert loop.status.labels == 8
        assert len(loop.queued_ids()) == 30


def test_the_last_tasks_are_labelled_without_a_stumble(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with Loop(label_studio, tmp_path, tasks=14, options={**OPTIONS, "poll_seconds": 1}) as loop:
        loop.wait_for_version()
        for _ in range(14):
            loop.label_next()
        loop.wait_for_labels(14)
        loop.settle()
        assert loop.client.next_task(loop.project_id) is None
        assert loop.status.last_error == ""
        [added] = loop.client.import_tasks(loop.project_id, make_tasks(1, seed=5))
        wait_for("the new task to be queued", lambda: added in loop.queued_ids())
        assert loop.label_next().id == added


def test_uploaded_images_are_fetched_with_a_personal_access_token(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 6, 3), (200, 60, 30), np.uint8)).save(buffer, "PNG")
    with Loop(label_studio, tmp_path, tasks=4, config=IMAGE_ONLY, options={**OPTIONS, "poll_seconds": 1}) as loop:
        loop.wait_for_version()
        loop.backend.stop("worker")
        loop.backend.environment["LABEL_STUDIO_API_KEY"] = label_studio.personal_token()
        loop.backend.start("worker")
        requests.post(
            f"{label_studio.url}/api/projects/{loop.project_id}/import",
            files={"file": ("picture.png", buffer.getvalue(), "image/png")},
            headers=loop.client.authorization(),
            timeout=30,
        ).raise_for_status()
        wait_for("the upload to be embedded", lambda: loop.status.embedded == 5)
        assert loop.status.unreadable_media == 0, loop.backend.cli(
            "embed", "problems", "-p", str(loop.project_id)
        ).stdout
        uploaded = next(t for t in loop.client.iter_tasks(loop.project_id) if t.id not in loop.task_ids)
        assert str(uploaded.data["photo"]).startswith("/data/upload/")
