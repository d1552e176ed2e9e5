"""docker-compose.yml in a container engine: `make test-containers`, where there is one and what it pulls."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.container_files import REPOSITORY, filled_in
from tests.containers.compose_containers import ComposeContainers
from tests.live import compose_round
from tests.live.backend_process import wait_for

OPERATIONS = REPOSITORY / "docs" / "operations.md"
DATABASES = ("postgres", "redis")


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return filled_in()


@pytest.fixture(scope="module")
def stack(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeContainers]:
    with ComposeContainers(tmp_path_factory.mktemp("compose"), variables) as running:
        yield running


@pytest.fixture(scope="module")
def project_id(stack: ComposeContainers, variables: dict[str, str]) -> int:
    return compose_round.attach_a_project(stack, compose_round.label_studio(stack, variables))


def test_a_round_goes_through_every_service(
    stack: ComposeContainers, variables: dict[str, str], project_id: int
) -> None:
    compose_round.answer_until_learnt(stack, compose_round.label_studio(stack, variables), project_id)
    assert all(stack.healthy(name) for name in stack.services)
    doctor = stack.run("worker", ["mmal", "doctor"])
    assert doctor.returncode == 0, doctor.stdout
    # Label Studio carried the password; a stranger is asked for it.
    assert requests.post(f"{stack.url('web')}/setup", json={}, timeout=10).status_code == 401


@pytest.mark.parametrize("name", ["postgres", "redis", "label-studio", "web", "worker"])
def test_no_process_is_root_or_can_become_it(stack: ComposeContainers, name: str) -> None:
    status = stack.run(name, ["cat", "/proc/1/status"]).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", ["postgres", "redis", "web", "worker"])
def test_nothing_but_volumes_and_tmp_can_be_written(stack: ComposeContainers, name: str) -> None:
    assert all(container["HostConfig"]["ReadonlyRootfs"] for container in stack.inspect(name))
    for place in ("/", "/etc", "/usr", "/var", "/app", "/home"):
        assert stack.run(name, ["sh", "-c", f"! test -d {place} || ! touch {place}/written"]).returncode == 0, place
    assert stack.run(name, ["sh", "-c", "touch /tmp/written && rm /tmp/written"]).returncode == 0


def test_databases_have_no_way_out_and_label_studio_does_not_reach_the_backends(stack: ComposeContainers) -> None:
    for name in DATABASES:
        routes = stack.run(name, ["cat", "/proc/net/route"]).stdout.splitlines()[1:]
        assert routes and not [line for line in routes if line.split()[1] == "00000000"], "a default route"
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    assert stack.run("web", ["python", "-c", connect, "redis", "6379"]).returncode == 0
    assert stack.run("label-studio", ["python3", "-c", connect, "redis", "6379"]).returncode != 0
    assert stack.run("label-studio", ["python3", "-c", connect, "postgres", "5432"]).returncode == 0


def test_databases_of_the_two_are_closed_to_each_other(stack: ComposeContainers, variables: dict[str, str]) -> None:
    connect = (
        "import os, psycopg; psycopg.connect(os.environ['MMAL_DATABASE_URL'].rpartition('/')[0] + '/label_studio')"
    )
    refused = stack.run("web", ["python", "-c", connect])
    assert refused.returncode != 0 and "permission denied" in refused.stderr


def test_a_killed_worker_is_started_again_and_goes_on(
    stack: ComposeContainers, variables: dict[str, str], project_id: int
) -> None:
    stack.compose("up", "--detach", "--scale", "worker=2", "--no-recreate")
    wait_for("a second worker", lambda: len(stack.inspect("worker")) == 2 and stack.healthy("worker"), pause=1)
    for container in stack.inspect("worker"):
        subprocess.run(["kill", "-9", str(container["State"]["Pid"])], check=True)
    compose_round.answer_until_learnt(stack, compose_round.label_studio(stack, variables), project_id)
    assert [container["RestartCount"] for container in stack.inspect("worker")] == [1, 1]
    stack.compose("up", "--detach", "--scale", "worker=1", "--no-recreate")


def test_the_backup_commands_of_the_documentation_work(
    stack: ComposeContainers, variables: dict[str, str], project_id: int, tmp_path: Path
) -> None:
    before = compose_round.status(stack)["labels"]
    back_up, *others = documented_commands()
    assert [command.split()[2] for command in (back_up, *others)] == ["exec", "stop", "run", "start"]
    run_documented(stack, back_up, tmp_path)
    compose_round.answer_until_learnt(stack, compose_round.label_studio(stack, variables), project_id)
    for command in others:
        run_documented(stack, command, tmp_path)
    wait_for("the services that were started", lambda: stack.healthy("web") and stack.healthy("worker"), pause=1)

    def caught_up() -> bool:
        return bool(compose_round.status(stack)["labels"] == before + compose_round.BATCH)

    wait_for("the labels given since the backup", caught_up, pause=1)
    assert stack.run("worker", ["sh", "-c", "! test -e /data/b.tar.gz"]).returncode == 0


def documented_commands() -> list[str]:
    """The lines that begin with `docker compose` below the heading of the backup in containers."""
    text = OPERATIONS.read_text()
    block = re.search(r"In containers, from and to a file of the host.*?```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line.startswith("docker compose ")]


def run_documented(stack: ComposeContainers, command: str, folder: Path) -> None:
    """With the project and the file of this test."""
    ours = command.replace("docker compose", " ".join(stack.command), 1)
    done = subprocess.run(["sh", "-c", ours], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_admin_api_and_the_metrics_are_open_to_their_tokens_only(
    stack: ComposeContainers, variables: dict[str, str]
) -> None:
    for path, token in (("/api/projects", "MMAL_ADMIN_TOKEN"), ("/metrics", "MMAL_METRICS_TOKEN")):
        assert requests.get(stack.url("web") + path, timeout=10).status_code == 401
        headers = {"Authorization": f"Bearer {variables[token]}"}
        assert requests.get(stack.url("web") + path, headers=headers, timeout=10).status_code == 200


def test_everything_is_there_after_a_stop_and_a_start(
    stack: ComposeContainers, variables: dict[str, str], project_id: int
) -> None:
    labels = compose_round.status(stack)["labels"]
    assert stack.compose("down").returncode == 0
    started = stack.compose("up", "--detach", "--wait")
    assert started.returncode == 0, started.stderr
    assert compose_round.status(stack)["labels"] == labels
    compose_round.answer_until_learnt(stack, compose_round.label_studio(stack, variables), project_id)
