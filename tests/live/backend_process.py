"""The backend as its user runs it: `mmal web` and `mmal worker` as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import requests

from backend.rounds.services import Services
from backend.settings import Settings, all_variables
from tests.team_servers import ON_POSTGRESQL, shared_postgres, shared_redis

REPOSITORY = Path(__file__).parents[2]
T = TypeVar("T")
# Seconds after which a wait has failed: far beyond what a loaded machine needs, for no test is about speed.
PATIENCE = 180.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], T], seconds: float = PATIENCE, pause: float = 0.1) -> T:
    """The first true answer of `check`; fails with the words of `what` when none comes."""
    until = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(pause)


@cache
def team_addresses(data_dir: Path) -> dict[str, str]:
    """Store and job queue of the backend with this data folder: PostgreSQL and Redis, or none for SQLite."""
    if not ON_POSTGRESQL:
        return {}
    return {"MMAL_DATABASE_URL": shared_postgres().new_database(), "MMAL_QUEUE_URL": shared_redis().new_database()}


class BackendProcess:
    """Web and worker on one data folder.

    Parameters
    ----------
    environment
        Further variables, such as {"MMAL_HOLD_AT": "imported"}.
    """

    def __init__(
        self, data_dir: Path, label_studio_url: str, api_key: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.data_dir = data_dir
        # Not in the folder: a full or damaged store would take the log with it.
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        # Not the repository, where there may be an .env for another backend.
        self.folder = data_dir.parent
        data_dir.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in all_variables()},
            "LABEL_STUDIO_URL": label_studio_url,
            "LABEL_STUDIO_API_KEY": api_key,
            "PORT": str(self.port),
            "MMAL_DATA_DIR": str(data_dir),
            "MMAL_ENCODER": "import:tests.live.toy_encoder:make",
            "MMAL_LEASE_SECONDS": "3",
            "MMAL_WEB_WORKERS": "1",
            # Several backends share the cores of a test machine, and threads that wait for each other do so busily.
            "MMAL_TORCH_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            **team_addresses(data_dir),
            **(environment or {}),
        }
        self.commands = {name: [sys.executable, "-m", "backend.cli", name] for name in ("web", "worker")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> BackendProcess:
        """Start web and worker, or only the one named."""
        for name in names or ("web", "worker"):
            with open(self.log, "ab") as log:
                self.processes[name] = subprocess.Popen(
                    self.commands[name],
                    cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        if "web" in self.processes:
            wait_for("the web process to answer /health", self._healthy)
        return self

    def stop(self, *names: str) -> None:
        """End in peace."""
        self._end(signal.SIGTERM, names)

    def kill9(self, *names: str) -> None:
        """End as a power cut would: the whole process group, at once."""
        self._end(signal.SIGKILL, names)

    def services(self) -> Services:
        """A look into the store of this backend."""
        aliases = {
            "LABEL_STUDIO_URL": "label_studio_url", "LABEL_STUDIO_API_KEY": "label_studio_api_key", "PORT": "port",
            "BASIC_AUTH_USER": "basic_auth_user", "BASIC_AUTH_PASS": "basic_auth_pass",
        }  # fmt: skip
        values: dict[str, Any] = {aliases[k]: v for k, v in self.environment.items() if k in aliases}
        values |= {k[5:].lower(): v for k, v in self.environment.items() if k.startswith("MMAL_")}
        return Services(Settings(**values))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mmal` as an admin would."""
        return subprocess.run(
            [sys.executable, "-m", "backend.cli", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=1).ok
        except requests.RequestException:
            return False

    def _end(self, number: int, names: tuple[str, ...]) -> None:
        for name in names or tuple(self.processes):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            if process.poll() is None:
                os.killpg(process.pid, number)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def __enter__(self) -> BackendProcess:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()
