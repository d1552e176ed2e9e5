"""The services of docker-compose.yml in containers: what `docker compose` does with the file as it is."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from backend.labelstudio.local_server import free_port
from tests.container_files import COMPOSE, services

FIRST_START = 900.0
# Published at no port: reached over the bridge, where the host has an address too.
WEB = "http://172.29.57.10:9090"


class ComposeContainers:
    """Starts a Compose project of its own and removes it with its volumes.

    Parameters
    ----------
    variables
        What stands in `.env`.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._port = free_port()
        variables = {**variables, "LABEL_STUDIO_LISTEN": f"127.0.0.1:{self._port}"}
        self.services = services(variables)
        env = folder / ".env"
        env.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        env.chmod(0o600)
        name = f"mmal-test-{uuid.uuid4().hex[:8]}"
        self.command = ["docker", "compose", "--project-name", name, "--env-file", str(env), "--file", str(COMPOSE)]

    def __enter__(self) -> ComposeContainers:
        started = self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(FIRST_START)))
        if started.returncode:
            logs = self.compose("logs", "--tail", "30").stdout
            self.compose("down", "--volumes")
            raise AssertionError(f"{started.stderr[-3000:]}\n{logs}")
        return self

    def __exit__(self, *exception: object) -> None:
        self.compose("down", "--volumes")

    def url(self, name: str) -> str:
        """Where a service is reached from this machine."""
        return {"label-studio": f"http://127.0.0.1:{self._port}", "web": WEB}[name]

    def run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """In the service's container."""
        return self.compose("exec", "-T", name, *command)

    def healthy(self, name: str) -> bool:
        """Whether every container of the service is, as the engine sees it."""
        lines = self.compose("ps", "--format", "json", name).stdout.splitlines()
        states = [json.loads(line)["Health"] for line in lines]
        return bool(states) and set(states) == {"healthy"}

    def compose(self, *words: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        """`docker compose WORDS`."""
        return subprocess.run([*self.command, *words], stdin=stdin, capture_output=True, text=True, check=False)

    def inspect(self, name: str) -> list[dict[str, Any]]:
        """What the engine knows of the service's containers."""
        ids = self.compose("ps", "--quiet", name).stdout.split()
        told = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True)
        found: list[dict[str, Any]] = json.loads(told.stdout)
        return found
