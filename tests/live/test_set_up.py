"""From nothing to a ranked project: by the script, by the command, by the connect button alone."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.project_setup import SAMPLING
from backend.labelstudio.queue_tab import TITLE
from backend.labelstudio.task_templates import templates_in
from backend.rounds.creating import TEMPLATES
from backend.store import projects, rounds
from backend.strategies import strategy_names
from tests.live.backend_process import REPOSITORY, BackendProcess, wait_for
from tests.live.loop import Loop
from tests.live.pool import CONFIG, make_tasks

SCRIPT = REPOSITORY / "scripts" / "setup_project.py"

pytestmark = pytest.mark.live

LABELS = ["warm", "cold", "grey"]


def run_script(backend: BackendProcess, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    tasks = [{"image": task["photo"], "text": task["title"]} for task in make_tasks(40)]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    command = [
        sys.executable, str(SCRIPT),
        "--template", "image_text_classification", "--title", folder.name[:50],
        "--tasks", str(folder / "tasks.json"), "--labels", str(folder / "labels.txt"), *more,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=backend.environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_set_up_script_run_twice_makes_one_ranked_project(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    client = label_studio.client()
    with BackendProcess(tmp_path / "backend", label_studio.url, label_studio.admin.token) as backend:
        first = run_script(backend, tmp_path, "--strategy", "bmmal")
        assert first.returncode == 0, first.stderr
        project_id = int(first.stdout.strip().split("/")[-2])
        backend.cli("project", "options", "-p", str(project_id), "batch_size=15")
        again = run_script(backend, tmp_path)
        assert again.stdout == first.stdout, again.stderr
        options = projects.get(backend.services().store, project_id).options
        assert (options["strategy"], options["batch_size"]) == ("bmmal", 15), "what an admin set was undone"
        wait_for("the first queue", lambda: (client.project(project_id).model_version or "").endswith("-bmmal"))
        project = client.project(project_id)
        assert (project.task_number, project.sampling) == (40, SAMPLING)
        assert [view["data"]["title"] for view in client.views(project_id)].count(TITLE) == 1
        assert [hook.url for hook in client.webhooks(project_id)] == [f"{backend.url}/events"]
        assert len(client.ml_backends(project_id)) == 1
        listing = backend.cli("queue", "show", "-p", str(project_id), "--json")
        assert client.next_task(project_id).id == json.loads(listing.stdout)[0]["task"]  # type: ignore[union-attr]


def test_the_set_up_script_takes_every_template_with_the_strategy_that_suits_it(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with BackendProcess(tmp_path / "backend", label_studio.url, label_studio.admin.token) as backend:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--template", "image_text_pairing", "--title", "Two pools"],
            cwd=tmp_path, env=backend.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        [project] = projects.every(backend.services().store)
        assert project.options["strategy"] == "pair_likely"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--strategy", "bold"], f"choose one of {strategy_names()[0]}"),
        (["--template", "nothing_of_this_name"], f"Use one of: {', '.join(templates_in(TEMPLATES))}"),
        (["--labels", "no-such-file.txt"], "no-such-file.txt cannot be read"),
    ],
)
def test_the_set_up_script_refuses_before_it_makes_anything(
    label_studio: LocalLabelStudio, tmp_path: Path, more: list[str], words: str
) -> None:
    backend = BackendProcess(tmp_path / "backend", label_studio.url, label_studio.admin.token)
    before = len(label_studio.client().projects())
    done = run_script(backend, tmp_path, *more)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(label_studio.client().projects()) == before


def test_the_connect_button_alone_sets_everything_up(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    client = label_studio.client()
    project_id = client.create_project("connected by hand", CONFIG).id
    client.import_tasks(project_id, make_tasks(30))
    with BackendProcess(tmp_path, label_studio.url, label_studio.admin.token) as backend:
        client.connect_backend(project_id, backend.url, "my model", {"strategy": "margin", "batch_size": 10})
        wait_for("a queue", lambda: (client.project(project_id).model_version or "").endswith("-margin"))
        assert client.project(project_id).sampling == SAMPLING
        assert [hook.url for hook in client.webhooks(project_id)] == [f"{backend.url}/events"]


def test_two_workers_never_run_the_same_round(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    options = {"batch_size": 10, "queue_size": 30, "poll_seconds": 1}
    with Loop(label_studio, tmp_path, tasks=60, options=options) as loop:
        second = BackendProcess(loop.backend.data_dir, label_studio.url, label_studio.admin.token)
        second.environment |= {k: v for k, v in loop.backend.environment.items() if k in ("PORT", "MMAL_DATA_DIR")}
        second.start("worker")
        try:
            loop.wait_for_version()
            for number in range(4):
                version = loop.project.version
                projects.request_round(loop.services.store, loop.project_id, f"round {number}", at_once=True)
                loop.wait_for_version(after=version)
        finally:
            second.stop()
        done = rounds.of_project(loop.services.store, loop.project_id)
        assert {r.status for r in done} == {"published"}
        asked = [r.trigger for r in done if r.trigger.startswith("round ")]
        assert sorted(asked) == [f"round {number}" for number in range(4)]
        spans = sorted((r.started_at, r.finished_at) for r in done)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
