"""What a request may be, and what is answered when it is too much or when we fail."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from backend.rounds.services import Services
from backend.server import protocol
from backend.server.app import create_app
from backend.settings import Settings
from backend.store import events, projects
from tests.live.pool import CONFIG


def test_a_failure_of_ours_answers_with_an_id_and_the_traceback_stays_in_the_log(
    web: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(protocol.notes, "events_secret", broken)
    with caplog.at_level(logging.ERROR):
        answer = web.post("/events", json={}, headers={"X-Request-ID": "request-17"})
    assert answer.status_code == 500
    assert "request_id=request-17" in answer.get_json()["detail"]
    for hidden in ("secret detail", "Traceback", "RuntimeError", ".py"):
        assert hidden not in answer.text + answer.status
    assert "RuntimeError: secret detail" in caplog.text


def test_a_request_that_is_too_large_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    web = create_app(Settings(data_dir=tmp_path, max_request_bytes=2000)).test_client()
    for path in ("/setup", "/predict", "/webhook"):
        answer = web.post(path, json={"schema": "x" * 3000})
        assert answer.status_code == 413
        assert "MMAL_MAX_REQUEST_BYTES" in answer.get_json()["detail"]


def test_the_limit_holds_for_five_thousand_tasks_as_label_studio_sends_them() -> None:
    assert Settings().max_request_bytes >= 5000 * 13_000


def test_too_many_tasks_are_refused_with_how_many_may_come(web: FlaskClient, services: Services) -> None:
    projects.remember(services.store, 7, state="attached", label_config=CONFIG)
    body = {"project": "7.1", "tasks": [{}] * (protocol.MOST_TASKS + 1)}
    answer = web.post("/predict", json=body)
    assert answer.status_code == 413
    assert f"at most {protocol.MOST_TASKS}" in answer.get_json()["detail"]


@pytest.mark.parametrize("tasks", ["[1]", '"all"', '{"id": 1}', "[[]]", "[null]", "7"])
def test_tasks_of_another_shape_are_refused(web: FlaskClient, services: Services, tasks: str) -> None:
    projects.remember(services.store, 7, state="attached", label_config=CONFIG)
    answer = web.post("/predict", data='{"project": 7, "tasks": ' + tasks + "}", content_type="application/json")
    assert answer.status_code == 400
    assert "tasks is no list of objects" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        "[" * 200_000,
        '{"project": 7, "action": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"project": 7, "action": "\\ud800\\u0000"}',
        '{"project": 7, "action": 1e999}',
        '{"project": ' + "9" * 5000 + "}",
        '{"project": 99999999999}',
        '{"project": "٧"}',
        '{"project": 7, "action": "' + "x" * 100_000 + '"}',
        '{"project": NaN}',
        "\ufeff{}",
    ],
)
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_json_that_no_store_could_hold_is_answered_all_the_same(
    web: FlaskClient, services: Services, path: str, body: str
) -> None:
    projects.remember(services.store, 7, state="attached", label_config=CONFIG)
    answer = web.post(path, data=body.encode(), content_type="application/json")
    assert answer.status_code < 500
    assert all(len(action) <= 64 for found in events.peek(services.store)[1].values() for action in found)
