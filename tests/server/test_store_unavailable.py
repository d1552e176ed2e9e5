"""While the store is damaged or the disk full, every request gets 503 and the reason in words."""

from __future__ import annotations

import os
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.test import Client

from backend.server.app import create_app
from backend.server.opening import OpensWhenItCan
from backend.settings import Settings
from tests.server.test_protocol import setup_body


def test_damage_that_is_found_while_running_is_answered_with_503_in_the_reason_phrase(
    web: FlaskClient, settings: Settings
) -> None:
    assert web.post("/setup", json=setup_body()).status_code == 200
    (settings.data_dir / "mmal.sqlite3").unlink()
    answer = web.post("/setup", json=setup_body())
    assert answer.status_code == 503
    assert "mmal restore FILE --replace" in answer.status
    assert answer.get_json()["error"] == "StoreDamaged"


def test_a_web_process_that_starts_on_a_damaged_store_says_so_and_opens_it_once_it_is_sound(tmp_path: Path) -> None:
    database = tmp_path / "mmal.sqlite3"
    create_app(Settings(data_dir=tmp_path)).extensions["mmal"][0].store.engine.dispose()
    sound = database.read_bytes()
    damaged = os.urandom(len(sound))
    database.write_bytes(damaged)
    client = Client(OpensWhenItCan(lambda: create_app(Settings(data_dir=tmp_path))))
    for path in ("/health", "/metrics", "/api/projects"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "file is not a database" in answer.status
    assert database.read_bytes() == damaged
    database.write_bytes(sound)
    assert client.get("/health").status_code == 200
