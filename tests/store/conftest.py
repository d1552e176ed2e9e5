"""An empty store, on SQLite and on PostgreSQL: what holds on one must hold on the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.settings import Settings
from backend.store import Store, open_store
from tests.team_servers import TeamServerError, shared_postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a store that nobody has opened yet."""
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path)
    try:
        return Settings(data_dir=tmp_path, database_url=shared_postgres().new_database())
    except TeamServerError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings)
    yield opened
    opened.engine.dispose()
