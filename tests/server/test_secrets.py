"""Tokens that arrive in payloads or stand in settings reach Label Studio at most: no log, error, reply or file."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from typer.testing import CliRunner

from backend import logs
from backend.cli import app as mmal
from backend.errors import LabelStudioError
from backend.rounds import embedding
from backend.rounds.services import Services
from backend.rounds.sync import sync_project
from backend.server.app import create_app
from backend.settings import Settings, load_settings
from backend.store import notes, projects, tasks
from tests.live.pool import CONFIG

CANARY = "canary-5f3a9c"
KEY = "0123456789abcdef0123456789abcdef01234567"
SETUP = {
    "project": "7.1", "schema": CONFIG, "hostname": "http://elsewhere.invalid", "access_token": CANARY,
    "extra_params": None, "api_key": CANARY,
}  # fmt: skip


class Recorder:
    """A server that notes who asks it with which credentials, and refuses everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.asked.append((self.path, self.headers.get("Authorization", "")))
                self.send_error(403)

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def recorders() -> Iterator[tuple[Recorder, Recorder]]:
    both = Recorder(), Recorder()
    yield both
    for recorder in both:
        recorder.server.shutdown()
        recorder.server.server_close()


def in_files(folder: Path, secret: str = CANARY) -> list[str]:
    """Files below a folder that hold the secret, as it is or in base64."""
    shapes = [secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(shape in path.read_bytes() for shape in shapes)]


def test_the_host_named_in_setup_is_never_asked_and_gets_no_token(
    recorders: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    studio, elsewhere = recorders
    settings = Settings(data_dir=tmp_path, label_studio_url=studio.url, label_studio_api_key=SecretStr(KEY))
    app = create_app(settings)
    services: Services = app.extensions["mmal"][0]
    body = {**SETUP, "hostname": elsewhere.url}
    assert app.test_client().post("/setup", json=body).status_code == 200
    projects.remember(services.store, 7, state="attached")
    with pytest.raises(LabelStudioError):
        sync_project(services, 7)
    assert elsewhere.asked == []
    assert studio.asked and {token for _, token in studio.asked} == {f"Token {KEY}"}


def test_tokens_in_payloads_reach_no_log_no_reply_and_no_file(
    web: FlaskClient, services: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [web.post("/setup", json=SETUP)]
    projects.remember(services.store, 7, state="attached")
    event = {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 7, "access_token": CANARY},
        "headers": {"Authorization": CANARY},
        "task": {"data": {"photo": f"http://u:{CANARY}@h/a.png?sig={CANARY}"}},
    }  # fmt: skip
    secret = notes.events_secret(services.store)
    for headers in ({"Authorization": f"Bearer {CANARY}"}, {"Authorization": f"Bearer {secret}", "X-Key": CANARY}):
        answers += [web.post(path, json=event, headers=headers) for path in ("/events", "/webhook")]
    odd = {
        "project": 7,
        "tasks": [{"id": 1, "data": {"photo": f"https://h/a?X-Amz-Signature={CANARY}"}}],
        "k": CANARY,
    }
    answers += [web.post(f"/predict?token={CANARY}", json=odd), web.get(f"/api/projects/7?token={CANARY}")]
    answers += [
        web.post("/setup", json={**SETUP, "schema": "<View/>"}),
        web.post("/predict", json={"access_token": CANARY}),
    ]
    answers += [web.patch("/api/projects/404/options", json={}, headers={"Authorization": f"Bearer {CANARY}"})]
    assert {answer.status_code for answer in answers} >= {200, 201, 400, 401, 404}
    for answer in answers:
        assert CANARY not in answer.text + answer.status + str(answer.headers)
    assert CANARY not in caplog.text
    assert in_files(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{CANARY}@127.0.0.1:1/a.png",
        f"http://127.0.0.1:1/a.png?X-Amz-Signature={CANARY}",
        f"https://h:{CANARY}@h.invalid:99999/a.png",
        f"http://[::1/a.png?{CANARY}",
        f"s3://bucket/a.png?versionId={CANARY}",
        f"ftp://user:{CANARY}@host/a.png",
        f"/data/upload/1/a.png?token={CANARY}",
        f"http://user:{CANARY}/x@127.0.0.1/a.png#{CANARY}",
    ],
)
def test_credentials_in_the_address_of_a_picture_stay_in_that_address(
    address: str, recorders: tuple[Recorder, Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logs.quieten_libraries()
    settings = Settings(
        data_dir=tmp_path, label_studio_url=recorders[0].url, label_studio_api_key=SecretStr(KEY),
        encoder="import:tests.live.toy_encoder:make", media_timeout=5.0,
    )  # fmt: skip
    services = Services(settings)
    projects.remember(services.store, 7, state="attached", label_config=CONFIG)
    tasks.remember(services.store, 7, [tasks.Inputs(1, address, "words")])
    embedding.embed_chunk(services, 7)
    [(_, _, problem)] = tasks.problems(services.store, 7)
    assert problem and CANARY not in problem
    assert CANARY not in caplog.text
    reply = create_app(settings).test_client().get("/api/projects/7")
    assert reply.status_code == 200 and CANARY not in reply.text


@pytest.mark.parametrize(
    "environment",
    [
        {"MMAL_DATABASE_URL": f"postgresql+psycopg://me:{CANARY}@127.0.0.1:1/x"},
        {"MMAL_DATABASE_URL": f"nonsense://me:{CANARY}@h/x?password={CANARY}"},
        {"MMAL_DATABASE_URL": f"postgresql://me:{CANARY}@[broken"},
        {"LABEL_STUDIO_URL": f"http://me:{CANARY}@127.0.0.1:1"},
        {"LABEL_STUDIO_URL": "http://127.0.0.1:1", "LABEL_STUDIO_API_KEY": CANARY},
        {"BASIC_AUTH_PASS": CANARY, "MMAL_ADMIN_TOKEN": CANARY, "MMAL_METRICS_TOKEN": CANARY},
        {"MMAL_QUEUE_URL": f"redis://:{CANARY}@127.0.0.1:1/0"},
    ],
)
@pytest.mark.parametrize("command", [["settings"], ["status"], ["doctor"], ["web"], ["round", "start", "-p", "7"]])
def test_secrets_of_the_settings_reach_no_output_of_a_command(
    environment: dict[str, str], command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of the credentials keeps `mmal web` from starting, whatever else is set.
    for name, value in {"MMAL_DATA_DIR": str(tmp_path), "BASIC_AUTH_PASS": "half", **environment}.items():
        monkeypatch.setenv(name, value)
    load_settings.cache_clear()
    try:
        result: Any = CliRunner().invoke(mmal, command)
    finally:
        load_settings.cache_clear()
    error = result.exception
    # Of a failure the command prints one line; what lies beneath is printed only where we did not expect it.
    assert CANARY not in result.output + repr(error) + str(error)
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
        assert CANARY not in str(error)


def test_a_failing_statement_does_not_quote_its_values(services: Services) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    with pytest.raises(SQLAlchemyError) as caught, services.store.statement() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": CANARY})
    assert CANARY not in str(caught.value)
