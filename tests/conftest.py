"""What every folder of tests shares."""

from __future__ import annotations

from tests import team_servers


def pytest_unconfigure() -> None:
    team_servers.close_shared()
