"""An admin switches the strategy in any of four ways; the next batch is that strategy's, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import requests
from sqlalchemy import select

from backend.errors import LabelStudioRefused
from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.connecting import set_options
from backend.store import rounds
from backend.store.tables import ControlPrediction
from backend.strategies import describe, strategy_names
from tests.live.backend_process import REPOSITORY
from tests.live.loop import Loop

pytestmark = pytest.mark.live

PASSWORD = ("studio", "s3cret")


@pytest.fixture(scope="module")
def loop(label_studio: LocalLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    options = {"batch_size": 10, "queue_size": 30, "poll_seconds": 1}
    # Behind a password: each change of the connection must leave it to Label Studio.
    environment = dict(zip(("BASIC_AUTH_USER", "BASIC_AUTH_PASS"), PASSWORD, strict=True))
    folder = tmp_path_factory.mktemp("switching")
    with Loop(label_studio, folder, tasks=100, options=options, environment=environment) as loop:
        loop.wait_for_version()
        loop.label_batch(5)
        loop.wait_for_labels(5)
        loop.settle()
        yield loop


def by_model_settings(loop: Loop, strategy: str) -> None:
    [backend] = loop.client.ml_backends(loop.project_id)
    loop.client.update_backend(backend, options={"strategy": strategy, "batch_size": 10})


def by_command(loop: Loop, strategy: str) -> None:
    done = loop.backend.cli("strategy", "set", strategy, "--project", str(loop.project_id), "--batch-size", "10")
    assert done.returncode == 0, done.stderr


def by_script(loop: Loop, strategy: str) -> None:
    done = run_script(loop, strategy)
    assert done.returncode == 0, done.stderr


def by_admin_api(loop: Loop, strategy: str) -> None:
    url = f"{loop.backend.url}/api/projects/{loop.project_id}/options"
    requests.patch(url, json={"strategy": strategy}, auth=PASSWORD, timeout=10).raise_for_status()


def run_script(loop: Loop, strategy: str) -> subprocess.CompletedProcess[str]:
    script, backend = REPOSITORY / "scripts" / "switch_strategy.py", loop.backend
    return subprocess.run(
        [sys.executable, str(script), "--project", str(loop.project_id), strategy],
        cwd=backend.folder, env=backend.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("switch", "strategy"),
    [(by_model_settings, "margin"), (by_command, "bmmal"), (by_script, "entropy"), (by_admin_api, "badge")],
)
def test_the_next_batch_is_the_new_strategys(loop: Loop, switch: Callable[[Loop, str], None], strategy: str) -> None:
    version, labels = loop.project.version, loop.status.labels
    switch(loop, strategy)
    after = loop.wait_for_version(after=version)
    assert after.endswith(f"-{strategy}")
    [latest] = rounds.of_project(loop.services.store, loop.project_id, limit=1)
    assert (latest.strategy, latest.status, latest.counts["labels"]) == (strategy, "published", labels)
    assert loop.label_next().id == loop.queued_ids()[0]
    loop.wait_for_labels(labels + 1)


# Those that compare pairs in one space, and those of pairing projects, are switched in projects of their kind.
SUITED = [name for name in strategy_names() if "shared_space" not in describe(name).needs]


@pytest.mark.parametrize("strategy", SUITED)
def test_every_strategy_publishes_a_batch(loop: Loop, strategy: str) -> None:
    version = loop.project.version
    if version.endswith(f"-{strategy}"):
        by_command(loop, "auto" if strategy != "auto" else "random")
        version = loop.wait_for_version(after=version)
    by_command(loop, strategy)
    assert loop.wait_for_version(after=version).endswith(f"-{strategy}")
    assert sum(entry.role != "reserve" for entry in loop.queue()) == 10


def test_an_unknown_name_is_refused_everywhere_with_the_list_of_what_exists(loop: Loop) -> None:
    before = loop.project.options
    known = f"choose one of {', '.join(strategy_names())}"
    [backend] = loop.client.ml_backends(loop.project_id)
    with pytest.raises(LabelStudioRefused, match=f"strategy 'bold' does not exist; {known}"):
        loop.client.update_backend(backend, options={"strategy": "bold"})
    command = loop.backend.cli("strategy", "set", "bold", "-p", str(loop.project_id))
    assert command.returncode == 2
    assert known in command.stderr
    script = run_script(loop, "bold")
    assert script.returncode == 1
    assert known in script.stderr
    url = f"{loop.backend.url}/api/projects/{loop.project_id}/options"
    answer = requests.patch(url, json={"strategy": "bold"}, auth=PASSWORD, timeout=10)
    assert answer.status_code == 400
    assert known in json.loads(answer.text)["detail"]
    assert loop.project.options == before


def test_the_form_in_label_studio_shows_what_was_set_elsewhere(loop: Loop) -> None:
    by_command(loop, "margin")
    [backend] = loop.client.ml_backends(loop.project_id)
    assert backend.options is not None
    assert (backend.options["strategy"], backend.options["batch_size"]) == ("margin", 10)
    assert loop.project.options["strategy"] == "margin"


def test_the_control_sample_measures_the_model_whatever_the_strategy(loop: Loop) -> None:
    version = loop.project.version
    set_options(loop.services, loop.project_id, {"audit_share": 0.5, "refresh_share": 1.0}, "the test")
    version = loop.wait_for_version(after=version)
    said: dict[int, list[str]] = {}
    for strategy in ("entropy", "random"):
        by_command(loop, strategy)
        version = loop.wait_for_version(after=version)
        drawn = {entry.task_id for entry in loop.queue() if entry.role == "control"}
        noted = {task_id: answer for task_id, answer in predictions(loop).items() if task_id in drawn}
        assert len(noted) == len(drawn) == 5
        said |= noted
        loop.label_batch(10)
        version = loop.wait_for_version(after=version)
    truth = loop.training_set()
    accuracy = loop.status.accuracy
    assert accuracy is not None and accuracy.now is not None
    assert (accuracy.control_answers, accuracy.now.answers) == (10, 10)
    assert accuracy.now.right == sum(answer == [truth[task_id]] for task_id, answer in said.items()) > 5
    printed = loop.backend.cli("accuracy", "--project", str(loop.project_id), "--json")
    assert json.loads(printed.stdout)[-1]["right"] == accuracy.now.right


def predictions(loop: Loop) -> dict[int, list[str]]:
    """What heads said of control tasks, of those that were answered and of those of the queue in force."""
    with loop.services.store.reading() as session:
        rows = session.execute(select(ControlPrediction.task_id, ControlPrediction.predicted))
        return {row.task_id: row.predicted for row in rows}
