"""An empty store."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.settings import Settings
from backend.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(Settings(data_dir=tmp_path))
