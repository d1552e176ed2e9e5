"""While the store is damaged or the disk full, every request gets 503 and the reason in words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import requests
from flask.testing import FlaskClient
from werkzeug.test import Client

from backend.server.app import create_app
from backend.server.opening import OpensWhenItCan
from backend.settings import Settings
from backend.store import events, open_store
from tests.live.backend_process import BackendProcess, wait_for
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


def test_start_training_is_refused_while_it_cannot_be_noted_and_kept_for_the_worker_once_it_is(
    web: FlaskClient, settings: Settings
) -> None:
    """Label Studio shows a refusal with the connection and asks no second time; it must not be told "noted"."""
    pressed = {"action": "START_TRAINING", "project": setup_body()["project"]}
    assert web.post("/setup", json=setup_body()).status_code == 200
    database = settings.data_dir / "mmal.sqlite3"
    database.rename(settings.data_dir / "away")
    refused = web.post("/webhook", json=pressed)
    assert refused.status_code == 503
    assert "mmal restore FILE --replace" in refused.status
    (settings.data_dir / "away").rename(database)
    store = open_store(settings)
    assert events.waiting(store) == 0
    assert web.post("/webhook", json=pressed).status_code == 201
    assert list(events.peek(store)[1].values()) == [{"START_TRAINING": 1}]


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


def test_running_processes_tell_the_damage_and_go_on_by_themselves_after_a_restore(tmp_path: Path) -> None:
    """As an operator meets it: no process is restarted. No Label Studio is needed, for no project is attached."""
    archive = tmp_path / "backup.tar.gz"
    environment = {"MMAL_LOG_FORMAT": "json", "MMAL_WEB_WORKERS": "2"}
    with BackendProcess(tmp_path / "backend", "http://127.0.0.1:9", "token", environment) as backend:
        database = backend.data_dir / "mmal.sqlite3"

        def stores_up() -> set[str]:
            text = requests.get(f"{backend.url}/metrics", timeout=30).text
            return {line for line in text.splitlines() if line.startswith(("mmal_store_up", "mmal_workers"))}

        wait_for("the worker's first sign of life", lambda: stores_up() == {"mmal_store_up 1.0", "mmal_workers 1.0"})
        made = backend.cli("backup", str(archive))
        assert made.returncode == 0, made.stderr
        # As a store with a project has them; without, nothing would be left once the processes let go of their files.
        vectors = backend.data_dir / "vectors" / "e" / "text.f16"
        vectors.parent.mkdir(parents=True)
        vectors.touch()
        database.unlink()
        refused = wait_for("a request to be refused", lambda: refusal_of(f"{backend.url}/api/projects"))
        assert refused == "StoreDamaged"
        wait_for("the worker to say so", lambda: "StoreDamaged; tried again in" in backend.log.read_text())

        restored = backend.cli("restore", str(archive), "--replace")
        assert restored.returncode == 0, restored.stderr
        assert "what was there before is in" in restored.stdout
        wait_for("both to go on", lambda: stores_up() == {"mmal_store_up 1.0", "mmal_workers 1.0"})
        assert all(process.poll() is None for process in backend.processes.values())
    for line in backend.log.read_text().splitlines():
        json.loads(line)


def refusal_of(url: str) -> str:
    """The kind of failure a request is answered with; empty when it went through."""
    answer = requests.get(url, timeout=30)
    return str(answer.json()["error"]) if answer.status_code == 503 else ""
