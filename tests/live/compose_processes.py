"""The services of docker-compose.yml as plain processes of this machine, all on loopback.

Commands, environment, start order and health checks are read from the compose file and the Dockerfile. What differs
is what a container would have of its own: addresses and ports, the folders /data and /tmp, and the PostgreSQL server,
which the tests have a starter for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.labelstudio import process_guard
from backend.labelstudio.allowed_addresses import environment_allowing
from backend.labelstudio.local_server import LOOPBACK, free_port
from tests.container_files import REPOSITORY, image_environment, services
from tests.live.backend_process import wait_for
from tests.live.conftest import executable
from tests.team_servers import PostgresServer

# Where each service listens inside its container.
PORTS = {"postgres": 5432, "redis": 6379, "label-studio": 8080, "web": 9090}
FIRST_START = 600.0


class ComposeProcesses:
    """Starts everything, each after those it needs are healthy, and ends everything.

    Parameters
    ----------
    variables
        What stands in `.env`.
    """

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.services = services(variables)
        self._postgres = PostgresServer()
        self.ports = {**{name: free_port() for name in PORTS}, "postgres": self._postgres.port}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def __enter__(self) -> ComposeProcesses:
        try:
            for name in self._start_order():
                assert not self.healthy(name), f"{name} is healthy before it was started"
                self._start(name)
                wait_for(f"{name} to be healthy", lambda name=name: self._healthy_while_running(name), FIRST_START)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all, the last started first."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()
        self._postgres.close()

    def healthy(self, name: str) -> bool:
        """What the service's health check says."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        return self.run(name, ["sh", "-c", *words] if kind == "CMD-SHELL" else words).returncode == 0

    def run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec NAME COMMAND` does."""
        return subprocess.run(
            self._local_command(name, command),
            env=self._environment(name), cwd=self._place(name), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start_order(self) -> list[str]:
        order: list[str] = []
        while len(order) < len(self.services):
            order += [
                name
                for name, service in self.services.items()
                if name not in order and set(service.get("depends_on", {})) <= set(order)
            ]
        return order

    def _start(self, name: str) -> None:
        if name == "postgres":
            self._postgres.start()
            made = self.run(name, [str(REPOSITORY / "deploy" / "postgres-init.sh")])
            assert made.returncode == 0, made.stderr
            return
        command = self._local_command(name, self.services[name]["command"])
        if name == "redis":
            command += ["--port", str(self.ports[name]), "--bind", "127.0.0.1", "--dir", str(self._place(name))]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, process_guard.__file__, *command],
                env=self._environment(name), cwd=self._place(name),
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _healthy_while_running(self, name: str) -> bool:
        process = self._running.get(name)
        assert process is None or process.poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
        return self.healthy(name)

    def _place(self, name: str) -> Path:
        """What is /tmp in the container."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        return place

    def _local_command(self, name: str, command: Sequence[str]) -> list[str]:
        programs = {
            "mmal": [sys.executable, "-m", "backend.cli"],
            "python": [sys.executable],
            "python3": [sys.executable],
            "label-studio": [str(executable())],
        }
        return [*programs.get(command[0], [command[0]]), *(self._local(name, word) for word in command[1:])]

    def _environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        image = image_environment() if "build" in service else {}
        given = {key: self._local(name, value) for key, value in {**image, **service["environment"]}.items()}
        given |= {key: "127.0.0.1" for key, value in given.items() if key.endswith("_HOST") and value in PORTS}
        of_this_machine = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": str(self._place(name))}
        if name == "postgres":
            # The image connects as its own administrator, through a socket.
            given |= {"POSTGRES_USER": "mmal", "PGPASSWORD": self._postgres.password, "PGHOST": "127.0.0.1"}
            given |= {"PGPORT": str(self._postgres.port)}
        if name == "label-studio":
            given |= {"LABEL_STUDIO_BASE_DATA_DIR": str(self._place(name)), **environment_allowing(LOOPBACK)}
        return {**of_this_machine, **given}

    def _aliases(self, name: str) -> list[str]:
        networks = self.services[name]["networks"]
        joined = networks.values() if isinstance(networks, dict) else ()
        return [alias for network in joined for alias in network.get("aliases", ())]

    def _local(self, name: str, text: str) -> str:
        for other, port in PORTS.items():
            here = f"127.0.0.1:{self.ports[other]}"
            for host in (other, *self._aliases(other)):
                text = text.replace(f"@{host}:{port}", f"@{here}").replace(f"//{host}:{port}", f"//{here}")
            if other == name:
                text = text.replace(f"localhost:{port}", here)
            if text == str(port):
                text = str(self.ports[other])
        text = "127.0.0.1" if text == "0.0.0.0" else text
        if text in ("/data", "/tmp"):
            return str(self.folder / "data") if text == "/data" else str(self._place(name))
        return text.replace("/tmp/", f"{self._place(name)}/")
