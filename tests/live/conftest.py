"""A real Label Studio for the tests of this folder; missing is a failure, never a skip."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.records import ProjectInfo

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"

CONFIG = """<View>
  <Header value="$al_reason"/>
  <Image name="image" value="$image"/>
  <Text name="text" value="$text"/>
  <Choices name="label" toName="image" choice="single">
    <Choice value="cat"/><Choice value="dog"/><Choice value="bird"/>
  </Choices>
</View>"""

_numbers = count(1)

MakeProject = Callable[..., ProjectInfo]


def executable() -> Path:
    given = os.environ.get("MMAL_LABEL_STUDIO_EXECUTABLE")
    path = Path(given) if given else REPOSITORY / ".venv-ls" / "bin" / "label-studio"
    if not path.is_file():
        pytest.fail(
            f"These tests need a real Label Studio and found none at {path}. Run `make label-studio`, or set"
            " MMAL_LABEL_STUDIO_EXECUTABLE to the `label-studio` command of another environment.",
            pytrace=False,
        )
    return path


def migrated_data(command: Path) -> Path:
    """A data folder whose first start is done: migrating takes 40-60 s, a start from here 5 s."""
    python = command.with_name("python")
    script = "import importlib.metadata as m; print(m.version('label-studio'))"
    version = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    ready = CACHE / f"label-studio-{version}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "label-studio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            growing = CACHE / f"label-studio-{version}.growing"
            shutil.rmtree(growing, ignore_errors=True)
            with LocalLabelStudio(growing, command):
                pass
            (growing / "label-studio.log").unlink()
            growing.rename(ready)
    return ready


def fresh_server(folder: Path, **options: Any) -> LocalLabelStudio:
    """A Label Studio of its own (not started) with an empty, migrated database in `folder`."""
    command = executable()
    data = folder / "label-studio"
    shutil.copytree(migrated_data(command), data)
    return LocalLabelStudio(data, command, **options)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLabelStudio]:
    """The Label Studio that all live tests share; use projects of your own."""
    folder = tmp_path_factory.mktemp("live")
    files = folder / "files"
    files.mkdir()
    with fresh_server(folder, document_root=files) as server:
        yield server


@pytest.fixture(scope="session")
def client(label_studio: LocalLabelStudio) -> LabelStudio:
    return label_studio.client()


@pytest.fixture
def make_project(client: LabelStudio) -> MakeProject:
    """Call with a number of tasks (and a label config) for a project with that many tasks."""

    def make(tasks: int = 0, label_config: str = CONFIG, **fields: Any) -> ProjectInfo:
        title = f"Project {os.getpid()}-{next(_numbers)}"
        project = client.create_project(title, label_config, **fields)
        client.import_tasks(
            project.id, [{"image": f"/data/{n}.png", "text": f"text number {n}"} for n in range(tasks)]
        )
        return client.project(project.id)

    return make


@pytest.fixture(scope="session")
def annotators(label_studio: LocalLabelStudio) -> Callable[[int], list[Account]]:
    """Call with a number for that many users besides the admin; the same ones in every test."""
    known: list[Account] = []

    def get(number: int) -> list[Account]:
        while len(known) < number:
            known.append(label_studio.add_annotator(f"annotator{len(known) + 1}@localhost.local"))
        return known[:number]

    return get
