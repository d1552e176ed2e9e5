"""A web process without a worker and without Label Studio: requests as Label Studio sends them, captured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from backend.rounds.services import Services
from backend.server.app import create_app
from backend.settings import Settings

FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio_1.23.2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make", predict_seconds=0.0)


@pytest.fixture
def web(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def services(web: FlaskClient) -> Services:
    found: Services = web.application.extensions["mmal"][0]
    return found


@pytest.fixture
def guarded(tmp_path: Path) -> FlaskClient:
    """The same behind basic authentication."""
    settings = Settings(data_dir=tmp_path, basic_auth_user="studio", basic_auth_pass=SecretStr("s3cret"))
    return create_app(settings).test_client()


def requests_in(name: str) -> list[dict[str, Any]]:
    """The requests that Label Studio 1.23.2 sent in one captured scene."""
    found: list[dict[str, Any]] = json.loads((FIXTURES / name).read_text())["requests_received_by_backend"]
    return found


def captured(method: str, path: str) -> list[Any]:
    """The body of every captured request of this kind, named after its scene."""
    found = []
    for file in sorted(FIXTURES.glob("[0-9][0-9]_*.json")):
        for number, request in enumerate(requests_in(file.name)):
            if (request["method"], request["path"]) == (method, path):
                found.append(pytest.param(request["body"], id=f"{file.stem}-{number}"))
    return found
