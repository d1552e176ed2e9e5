"""`make demo`: a real Label Studio and this backend on real image-text tasks, connected, ranked and learning.

Everything lives in .demo/ and is found again by the next run. With --annotate N a scripted annotator labels N tasks
through Label Studio's own API, in the order Label Studio serves them, and both the head of this run and heads of
random labelling are scored on pairs that were never imported.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests
from pydantic import SecretStr
from tqdm import tqdm

from backend.errors import MmalError
from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.task_templates import TaskTemplate, create_project
from backend.rounds.connecting import attach_project, set_options
from backend.rounds.creating import find_template
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.settings import Settings, all_variables
from backend.simulation.pairs import Pairs, load_dataset
from backend.store import projects
from scripts.scripted_annotator import annotate

REPOSITORY = Path(__file__).resolve().parents[1]
TEMPLATE = "image_text_classification"
PAIRS = REPOSITORY / "tasks_templates" / TEMPLATE / "demo"
GUARD = REPOSITORY / "backend" / "labelstudio" / "process_guard.py"
TITLE = "Demo: drawings and their titles"
# Small batches: an annotator who tries the demo should see it learn within a minute.
OPTIONS = {"batch_size": 10}
# Seconds until the backend has to answer.
PATIENCE = 120.0


class DemoFailed(MmalError):
    """The backend of the demo does not answer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotate", type=int, default=0, metavar="N", help="label N tasks by script")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".demo")
    parser.add_argument("--leave", action="store_true", help="end when everything is up instead of running on")
    given = parser.parse_args()
    # The demo has a store, a queue and a Label Studio of its own, whatever is set for another backend here.
    for variable in all_variables():
        os.environ.pop(variable, None)
    # Ctrl-C and a plain kill end the same way: through the context managers, which stop every process.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(given.folder, given.annotate, given.leave)
    except KeyboardInterrupt:
        print("\nStopped. `make demo` goes on with the same data.")
    except MmalError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _run(folder: Path, labels: int, leave: bool) -> None:
    started = time.monotonic()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ports = _ports(folder / "ports.json")
    executable = REPOSITORY / ".venv-ls" / "bin" / "label-studio"
    server = LocalLabelStudio(
        folder / "label-studio", executable, port=ports["label_studio"], document_root=PAIRS.parent
    )
    _say("Starting Label Studio (the first time it builds its database, about a minute) ...")
    server.start(progress=lambda seconds, doing: print(f"\r  {seconds:4.0f} s  {doing[:90]:90s}", end="", flush=True))
    print()
    try:
        settings = _settings(folder, server, ports["backend"])
        with _backend(settings, folder):
            pairs = load_dataset(PAIRS)
            services = Services(settings)
            project_id = _project(services, server, pairs)
            wait_for_queue(services, project_id)
            _say(f"Ready after {time.monotonic() - started:.0f} s.")
            if labels:
                annotate(services, server.client(), project_id, pairs, labels)
            _tell(server, settings, project_id, _environment_file(folder, settings))
            while not leave:
                time.sleep(3600)
    finally:
        server.stop()


def _ports(file: Path) -> dict[str, int]:
    """Free ports, the same at every start: Label Studio remembers the backend's address."""
    if file.exists():
        ports: dict[str, int] = json.loads(file.read_text())
        return ports
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"label_studio": one.getsockname()[1], "backend": other.getsockname()[1]}
    file.write_text(json.dumps(ports))
    return ports


def _settings(folder: Path, server: LocalLabelStudio, port: int) -> Settings:
    return Settings(
        _env_file=None,
        label_studio_url=server.url,
        label_studio_api_key=SecretStr(server.admin.token),
        port=port,
        data_dir=folder / "backend",
        local_files_root=PAIRS.parent,
    )


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "PORT": str(settings.port),
        "MMAL_DATA_DIR": str(settings.data_dir),
        "MMAL_LOCAL_FILES_ROOT": str(settings.local_files_root),
    }


@contextmanager
def _backend(settings: Settings, folder: Path) -> Iterator[None]:
    """`mmal serve` as a process that ends with this one, however this one ends."""
    _say("Starting the backend (mmal serve) ...")
    with open(folder / "backend.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(GUARD), sys.executable, "-P", "-m", "backend.cli", "serve"],
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            # Not here, where there may be an .env for another backend.
            cwd=folder, env=os.environ | _environment(settings),
        )  # fmt: skip
    try:
        _wait_for_health(settings, process, folder / "backend.log")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for_health(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> None:
    said, until = "nothing", time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise DemoFailed(f"The backend ended with status {process.returncode}; its last words are in {log}")
        try:
            answer = requests.get(f"{settings.backend_url}/health", timeout=1)
            if answer.ok:
                return
            said = f"{answer.status_code} {answer.text[:200]!r}"
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise DemoFailed(
        f"{settings.backend_url}/health answered {said} for {PATIENCE:.0f} s. What the backend says is in {log}."
        f" Where another program has port {settings.port}, stop it, or remove {log.parent} and begin anew"
    )


def tasks_of(pairs: Pairs) -> list[dict[str, str]]:
    """Task data of the pairs that are not held out; `pair` names the pair and is shown to nobody."""
    assert pairs.holdout is not None
    return [
        {"image": f"/data/local-files/?d=demo/images/{image.name}", "text": text, "pair": name}
        for image, text, name, held_out in zip(pairs.images, pairs.texts, pairs.ids, pairs.holdout, strict=True)
        if not held_out
    ]


def _project(services: Services, server: LocalLabelStudio, pairs: Pairs) -> int:
    _say("Setting the project up ...")
    template = TaskTemplate.load(find_template(TEMPLATE))
    made = create_project(server.client(), template, TITLE, list(pairs.classes), tasks_of(pairs))
    server.client().add_local_files(made.project.id, str(PAIRS), "Demo pictures")
    attach_project(services, made.project.id)
    if made.created:
        set_options(services, made.project.id, OPTIONS, why="the demo")
    return made.project.id


def wait_for_queue(services: Services, project_id: int) -> None:
    """Until the first queue is in force and everything is embedded, with a bar."""
    with tqdm(desc="  embedding", unit=" tasks", total=0) as bar:
        while True:
            status = project_status(services, projects.get(services.store, project_id))
            bar.total = status.tasks
            bar.update(status.embedded - bar.n)
            resting = not (status.round_requested or status.round_running)
            if status.version and status.tasks and status.embedded == status.tasks and resting:
                return
            if status.last_error:
                bar.set_postfix_str(status.last_error[:80])
            time.sleep(0.3)


def _environment_file(folder: Path, settings: Settings) -> Path:
    """With these variables the command `mmal` looks at the demo."""
    file = folder / "env"
    file.touch(mode=0o600)
    file.write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _environment(settings).items())
    )
    return file


def _tell(server: LocalLabelStudio, settings: Settings, project_id: int, environment: Path) -> None:
    print(f"""
  Label Studio   {server.url}/projects/{project_id}/data
  log in with    {server.admin.email}   {server.admin.password}
  backend        {settings.backend_url}   (state: {settings.backend_url}/api/projects/{project_id})

  What to do next
  - Press "Label All Tasks": the next task is the one most worth labelling, and the blue line says why.
  - After 8 answers a new queue is chosen from what was learnt; the tab "Queue" shows it in order.
  - Switch the strategy: Settings > Model > Edit, extra params {{"strategy": "bmmal"}}.
  - Ask it from another terminal: . {environment} && {REPOSITORY}/.venv/bin/mmal status --project {project_id}
  - Ctrl-C stops everything; `make demo` goes on where it was.
""")


def _say(text: str) -> None:
    print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
