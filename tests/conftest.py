"""What every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.settings import Settings, all_variables
from tests import team_servers

CONTAINERS = Path(__file__).parent / "containers"

# What the person who runs the tests has set for a backend of theirs must not be tested on.
for variable in all_variables():
    os.environ.pop(variable, None)
Settings.model_config["env_file"] = None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of containers run where they are named only: they need an engine and images that `make test` does not."""
    named = any(
        CONTAINERS in [path, *path.parents] for path in (Path(word.split("::")[0]).resolve() for word in config.args)
    )
    return True if collection_path == CONTAINERS and not named else None


def pytest_unconfigure() -> None:
    team_servers.close_shared()
