"""`mmal serve`: web process and worker end with their supervisor, however that ends, and the next one can start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from backend.labelstudio.local_server import free_port
from tests.live.backend_process import REPOSITORY, wait_for

pytestmark = pytest.mark.slow


def as_in_a_terminal() -> None:
    """Whatever runs the tests may have been started by nohup, and hand that on."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Serve:
    """`mmal serve` in a session of its own, as in a terminal."""

    def __init__(self, folder: Path, *before: str) -> None:
        self.folder, self.port = folder, free_port()
        self.environment = {
            **os.environ,
            "PORT": str(self.port),
            "LABEL_STUDIO_URL": "http://127.0.0.1:9",
            "MMAL_DATA_DIR": str(folder / "data"),
            "MMAL_WEB_WORKERS": "1",
            "MMAL_PULSE_FILE": str(folder / "pulse"),
            "PYTHONPATH": str(REPOSITORY),
        }
        self.before = before
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        # What lies where somebody starts it must not be taken for a part of it.
        (self.folder / "backend").mkdir(exist_ok=True)
        (self.folder / "backend" / "__init__.py").write_text("raise ImportError('another backend')")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.before, sys.executable, "-P", "-m", "backend.cli", "serve"],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=as_in_a_terminal,
            )  # fmt: skip
        wait_for("the web process to answer", self.healthy, seconds=120)
        wait_for("the worker to run", lambda: any("worker" in line for line in self.children()))
        return self.process

    def healthy(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/health", timeout=1).ok
        except requests.RequestException:
            return False

    def children(self) -> list[str]:
        """Command lines of web processes and workers that were started with this folder's settings."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if f"PORT={self.port}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            if line.endswith((" web", " worker")) or line.startswith("gunicorn"):
                found.append(line)
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made = Serve(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        made.process.wait(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_both_end_with_their_supervisor_and_the_next_can_start(serve: Serve, number: signal.Signals) -> None:
    process = serve.start()
    os.killpg(process.pid, number)
    process.wait(timeout=60)
    wait_for("web process and worker to end", lambda: not serve.children(), seconds=60)
    if number == signal.SIGHUP:
        assert process.returncode == 0
        process = serve.start()
        assert process.poll() is None


def test_a_terminal_that_closes_leaves_what_nohup_started(serve: Serve) -> None:
    serve.before = ("nohup",)
    process = serve.start()
    os.killpg(process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    assert serve.healthy()


@pytest.mark.parametrize("command", ["web", "worker"])
def test_each_alone_ends_with_its_terminal(serve: Serve, command: str) -> None:
    with open(serve.folder / "log", "w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", command],
            cwd=serve.folder, env=serve.environment, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=as_in_a_terminal,
        )  # fmt: skip
        if command == "web":
            wait_for("web to listen", lambda: b"listening at" in (serve.folder / "log").read_bytes(), seconds=120)
        else:
            wait_for("the worker's first pulse", (serve.folder / "pulse").exists, seconds=120)
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(timeout=60) >= 0, "ended by itself, not by the signal"
        wait_for("its processes to end", lambda: not serve.children(), seconds=30)
