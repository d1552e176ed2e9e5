"""A real Label Studio for the tests of this folder; missing is a failure, never a skip."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.local_server import Account
from backend.labelstudio.records import ProjectInfo
from tests.live.label_studio import AnnotatorClient, RestartableLabelStudio
from tests.live.migrated import copy_of_sqlite, copy_on_postgresql
from tests.team_servers import ON_POSTGRESQL

REPOSITORY = Path(__file__).resolve().parents[2]

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


def fresh_server(folder: Path, *, on_postgresql: bool = ON_POSTGRESQL, **options: Any) -> RestartableLabelStudio:
    """A Label Studio of its own (not started) with an empty, migrated database and its files in `folder`."""
    command = executable()
    data = folder / "label-studio"
    if on_postgresql:
        options["environment"] = {**copy_on_postgresql(command, data), **options.get("environment", {})}
    else:
        copy_of_sqlite(command, data)
    return RestartableLabelStudio(data, command, **options)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableLabelStudio]:
    """The Label Studio that all live tests share; use projects of your own."""
    folder = tmp_path_factory.mktemp("live")
    files = folder / "files"
    files.mkdir()
    with fresh_server(folder, document_root=files) as server:
        yield server


@pytest.fixture(scope="session")
def client(label_studio: RestartableLabelStudio) -> AnnotatorClient:
    return label_studio.client()


@pytest.fixture
def make_project(client: AnnotatorClient) -> MakeProject:
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
def annotators(label_studio: RestartableLabelStudio) -> Callable[[int], list[Account]]:
    """Call with a number for that many users besides the admin; the same ones in every test."""
    known: list[Account] = []

    def get(number: int) -> list[Account]:
        while len(known) < number:
            known.append(label_studio.add_annotator(f"annotator{len(known) + 1}@localhost.local"))
        return known[:number]

    return get
