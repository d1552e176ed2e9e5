"""Each line says what it belongs to, as text or as JSON, and none holds a body or a token."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from backend import logs
from backend.server.app import create_app
from backend.settings import Settings

log = logging.getLogger("backend.somewhere")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.handlers.clear()  # pytest adds its own anew for each phase of a test
    root.setLevel(level)
    logging.captureWarnings(False)


class Written:
    """What a process with these settings writes to standard error."""

    def __init__(self, **settings: Any) -> None:
        logs.configure(Settings(**settings))
        [handler] = logging.getLogger().handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is sys.stderr
        self._stream = io.StringIO()
        handler.setStream(self._stream)

    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def as_json() -> Written:
    return Written(log_format="json", log_level="DEBUG")


def test_a_json_line_holds_message_level_logger_time_and_ids(as_json: Written) -> None:
    with logs.context(job="round", project_id=3):
        logs.bind(round_id=12)
        log.warning("%s tasks\nin “two” lines", 7)
    [line] = as_json.lines()
    assert line.pop("timestamp").startswith("20")
    assert line == {
        "level": "WARNING", "logger": "backend.somewhere", "message": "7 tasks\nin “two” lines",
        "job": "round", "project_id": 3, "round_id": 12,
    }  # fmt: skip


def test_a_traceback_is_part_of_its_json_line(as_json: Written) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    [line] = as_json.lines()
    assert "ValueError: broken" in line["exc_info"]


def test_a_text_line_ends_with_the_ids_that_apply() -> None:
    written = Written()
    log.info("nothing in particular")
    with logs.context(request_id="abc", project_id=3):
        log.info("a request")
    plain, request = written.text().splitlines()
    assert plain.endswith("INFO backend.somewhere: nothing in particular")
    assert request.endswith("INFO backend.somewhere: a request [request_id=abc project_id=3]")


def test_ids_end_with_their_block_and_do_not_reach_other_threads(as_json: Written) -> None:
    with logs.context(job="embed", project_id=1):
        logs.bind(round_id=5)
        thread = threading.Thread(target=log.info, args=["elsewhere"])
        thread.start()
        thread.join()
    log.info("afterwards")
    assert all(not set(line) & set(logs.FIELDS) for line in as_json.lines())


def test_threads_of_a_pool_carry_the_ids_of_who_asked(as_json: Written) -> None:
    with logs.context(round_id=9), ThreadPoolExecutor(4) as pool:
        list(pool.map(logs.carried(log.info), ["a", "b", "c", "d", "e"]))
    assert [line["round_id"] for line in as_json.lines()] == [9] * 5


def test_lines_of_libraries_and_warnings_are_json_too(as_json: Written) -> None:
    import warnings

    logging.getLogger("gunicorn.error").propagate = True
    logging.getLogger("gunicorn.error").critical("WORKER TIMEOUT (pid:7)")
    warnings.warn("old", stacklevel=1)
    assert [line["logger"] for line in as_json.lines()] == ["gunicorn.error", "py.warnings"]


@pytest.fixture
def web(tmp_path: Path) -> FlaskClient:
    return create_app(Settings(data_dir=tmp_path)).test_client()


def test_every_line_of_a_request_carries_the_id_that_its_reply_names(web: FlaskClient, as_json: Written) -> None:
    answer = web.post("/predict", json={"project": "77.1", "tasks": []}, headers={"X-Request-ID": "proxy-4711"})
    assert answer.status_code == 404
    assert answer.headers["X-Request-ID"] == "proxy-4711"
    lines = as_json.lines()
    assert any("project = 77 is not connected" in line["message"] for line in lines)
    assert lines[-1]["message"].startswith("POST /predict 404 in ")
    assert {line["request_id"] for line in lines} == {"proxy-4711"}
    assert {line["project_id"] for line in lines} == {77}


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, '"}{', "-"])
def test_an_id_that_could_spoil_a_line_is_replaced(web: FlaskClient, given: str) -> None:
    ids = [web.get("/health", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2)]
    assert given not in ids
    assert len(set(ids)) == 2
    assert all(logs.SANE_ID.fullmatch(each) for each in ids)


def test_refused_requests_have_an_id_too(tmp_path: Path) -> None:
    guarded = create_app(
        Settings(data_dir=tmp_path, basic_auth_user="a", basic_auth_pass=SecretStr("b"))
    ).test_client()
    answer = guarded.get("/metrics", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (401, "r1")


def test_no_line_holds_a_body_a_query_or_a_header(web: FlaskClient, as_json: Written) -> None:
    web.post(
        "/setup?token=in-the-query",
        json={"project": "5.1", "schema": "<View><!-- in-the-config --></View>", "access_token": "in-the-body"},
        headers={"Authorization": "Token in-the-header"},
    )
    text = as_json.text()
    assert "POST /setup 400" in text
    assert "in-the-" not in text


@pytest.mark.parametrize(("name", "value"), [("MMAL_LOG_FORMAT", "xml"), ("MMAL_LOG_LEVEL", "LOUD")])
def test_a_format_or_level_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from backend.errors import ConfigurationError
    from backend.settings import load_settings

    monkeypatch.setenv(name, value)
    load_settings.cache_clear()
    with pytest.raises(ConfigurationError, match=name):
        load_settings()
    load_settings.cache_clear()
