"""Starting, killing and restarting a real Label Studio, and making projects in it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from backend.errors import LabelStudioUnreachable, LocalLabelStudioError, TaskTemplateInvalid
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.task_templates import TaskTemplate, create_project, templates_in

from .conftest import CONFIG, REPOSITORY, executable, fresh_server

pytestmark = pytest.mark.live

TEMPLATES = REPOSITORY / "tasks_templates"


def test_data_and_tokens_survive_a_kill_and_a_restart(tmp_path: Path) -> None:
    server = fresh_server(tmp_path)
    seen: list[tuple[float, str]] = []
    try:
        server.start(progress=lambda seconds, doing: seen.append((seconds, doing)))
        assert seen and all(doing for _, doing in seen)
        url = server.url
        project = server.client().create_project("Kept", CONFIG)
        personal = LabelStudio(url, server.personal_token())
        server.kill9()
        assert not server.running
        with pytest.raises(LabelStudioUnreachable):
            LabelStudio(url, server.admin.token, attempts=1).whoami()
        server.start()
        assert server.url == url
        assert server.client().project(project.id).title == "Kept"
        assert personal.project(project.id).title == "Kept"
        # The account file holds a password and a token.
        (account,) = server.data_dir.glob("local_account.json")
        assert stat.S_IMODE(account.stat().st_mode) == 0o600
    finally:
        server.stop()
    assert not server.running


def test_taken_port_is_refused_instead_of_talking_to_a_stranger(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    port = int(label_studio.url.rpartition(":")[2])
    with pytest.raises(LocalLabelStudioError, match=f"Port {port} is taken"):
        fresh_server(tmp_path, port=port).start()


def test_missing_executable_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(LocalLabelStudioError, match="pip install label-studio"):
        LocalLabelStudio(tmp_path, tmp_path / "label-studio")


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    broken = tmp_path / "label-studio"
    broken.write_text("#!/bin/sh\necho no module named django\nexit 3\n")
    broken.chmod(0o755)
    server = LocalLabelStudio(tmp_path / "data", broken)
    with pytest.raises(LocalLabelStudioError, match="no module named django"):
        server.start()
    assert not server.running


def test_settings_of_this_backend_do_not_leak_into_label_studio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    monkeypatch.setenv("LABEL_STUDIO_PORT", "1")
    server = LocalLabelStudio(tmp_path, executable(), port=45678, environment={"TASK_LOCK_TTL": "5"})
    variables = server._variables()
    assert "LABEL_STUDIO_API_KEY" not in variables and "LABEL_STUDIO_PORT" not in variables
    assert variables["TASK_LOCK_TTL"] == "5"


@pytest.mark.parametrize("name", templates_in(TEMPLATES))
def test_project_is_made_from_a_template_once(client: LabelStudio, name: str) -> None:
    template = TaskTemplate.load(TEMPLATES / name)
    labels, tasks = template.example_labels, template.sample_tasks()
    first = create_project(client, template, f"From {name}", labels, tasks)
    again = create_project(client, template, f"From {name}", labels, tasks)
    assert (first.created, again.created) == (True, False)
    assert again.project == first.project and again.project.task_number == len(tasks) == len(first.task_ids)
    assert again.task_ids == ()
    with pytest.raises(TaskTemplateInvalid, match="other answers"):
        create_project(client, template, f"From {name}", ["x", "y"])


def test_project_made_by_hand_is_not_taken_for_ours(client: LabelStudio) -> None:
    template = TaskTemplate.load(TEMPLATES / "image_text_classification")
    client.create_project("By hand", CONFIG)
    with pytest.raises(TaskTemplateInvalid, match="choose another title"):
        create_project(client, template, "By hand", template.example_labels)
