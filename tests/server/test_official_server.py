"""Under `label-studio-ml start backend`: what version 2.x calls, and that its faults do not reach our users.

Every check runs against a stand-in, and against the real package too where version 2 is importable.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from backend._wsgi import official_app
from backend.labelstudio.predictions import check_rows
from backend.official_base import PACKAGE, official_base
from backend.settings import Settings
from tests.live.backend_process import free_port, wait_for
from tests.official_package import REPOSITORY, installed, python_path
from tests.server.conftest import requests_in

TOKEN = "t0ken-0f-label-studio"
SETUP = requests_in("01_connect.json")[1]["body"] | {"access_token": TOKEN}
PROJECT = SETUP["project"].split(".")[0]
CONFIG = SETUP["schema"]
TASKS = [{"id": n, "data": {"image": "", "caption": f"caption {n}"}} for n in (1, 2)]


def setup(extra_params: Any = None) -> dict[str, Any]:
    return {"method": "POST", "path": "/setup", "body": {**SETUP, "extra_params": extra_params}}


def predict(project: str) -> dict[str, Any]:
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": TASKS, "project": project, "label_config": CONFIG, "params": params}
    return {"method": "POST", "path": "/predict", "body": body}


def event(action: str, path: str = "/webhook", project: str = PROJECT) -> dict[str, Any]:
    body = {"action": action, "project": {"id": int(project), "label_config": CONFIG}}
    return {"method": "POST", "path": path, "body": body}


def junk(path: str, text: str) -> dict[str, Any]:
    return {"method": "POST", "path": path, "text": text}


def look(path: str) -> dict[str, Any]:
    return {"method": "GET", "path": path}


PATHS = ("/setup", "/predict", "/webhook")
JUNK = ("{", "[]", "3", '{"project": 3, "params": 3}', "[" * 20_000)
MOST_BYTES = 50_000


# In this order: what is asked later finds what was set earlier.
REQUESTS = {
    "health": look("/health"),
    "predict before setup": predict(f"{PROJECT}.17"),
    "setup": setup(),
    "options as text": setup('{"strategy": "margin"}'),
    "strategy after text": look(f"/api/projects/{PROJECT}"),
    "options as object": setup({"strategy": "badge"}),
    "strategy after object": look(f"/api/projects/{PROJECT}"),
    "no options": setup(),
    "strategy after none": look(f"/api/projects/{PROJECT}"),
    "bad options": setup({"strategy": "bold"}),
    "predict": predict(f"{PROJECT}.17"),
    "predict of junk": {"method": "POST", "path": "/predict", "body": {"tasks": 3, "project": PROJECT}},
    "predict with odd params": {
        "method": "POST",
        "path": "/predict",
        "body": {"tasks": TASKS, "project": PROJECT, "label_config": CONFIG, "params": {"tasks": 1, "self": 2}},
    },
    "predict that fails": {**predict(f"{PROJECT}.17"), "fault": True},
    **{f"junk {path} {text[:9]}": junk(path, text) for path in PATHS for text in JUNK},
    "too large": {"method": "POST", "path": "/setup", "body": {**SETUP, "schema": "x" * MOST_BYTES}},
    "start training": event("START_TRAINING"),
    "annotation": event("ANNOTATION_CREATED"),
    "annotation of a stranger": event("ANNOTATION_CREATED", project="99"),
    "deletion": event("ANNOTATIONS_DELETED"),
    "bulk": event("ANNOTATIONS_CREATED"),
    "deletion to our webhook": event("ANNOTATIONS_DELETED", path="/events"),
    "bulk to our webhook": event("ANNOTATIONS_CREATED", path="/events"),
    "versions": look("/versions"),
}


@pytest.fixture(scope="module", params=["stand-in", *(["installed"] if installed() else [])])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """All requests, once: `outcome` has reply and calls of each, `log` what was written meanwhile."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.server.official_driver"],
        input=json.dumps(list(REQUESTS.values())),
        env=environment(tmp_path_factory.mktemp("official"), stand_in=request.param == "stand-in"),
        cwd=tmp_path_factory.mktemp("working"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["derived"]
    return SimpleNamespace(outcome=dict(zip(REQUESTS, found["replies"], strict=True)), log=done.stderr)


@pytest.fixture(scope="module")
def outcome(session: SimpleNamespace) -> dict[str, Any]:
    found: dict[str, Any] = session.outcome
    return found


def environment(data_dir: Path, *, stand_in: bool) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("MMAL_", "BASIC_AUTH_", "MODEL_DIR"))}
    return {
        **given,
        "PYTHONPATH": python_path(given, stand_in=stand_in),
        "MMAL_DATA_DIR": str(data_dir),
        "MMAL_ENCODER": "import:tests.live.toy_encoder:make",
        "MMAL_PREDICT_SECONDS": "0",
        "MMAL_LOG_LEVEL": "DEBUG",
        "MMAL_MAX_REQUEST_BYTES": str(MOST_BYTES),
    }


def test_setup_makes_a_model_hands_it_the_options_and_asks_for_its_version(outcome: dict[str, Any]) -> None:
    construct = ["__init__", [], {"project_id": PROJECT, "label_config": CONFIG}]
    ask = ["get", ["model_version"], {}]
    assert outcome["setup"]["calls"] == [construct, ask]
    text = '{"strategy": "margin"}'
    assert outcome["options as text"]["calls"] == [construct, ["set_extra_params", [text], {}], ask]
    assert outcome["options as object"]["calls"][1] == ["set_extra_params", [{"strategy": "badge"}], {}]
    assert outcome["setup"]["body"] == {"model_version": "v0-live"}


def test_predict_makes_a_model_and_passes_the_tasks_with_their_context(outcome: dict[str, Any]) -> None:
    assert outcome["predict"]["calls"] == [
        ["__init__", [], {"project_id": PROJECT, "label_config": CONFIG}],
        ["predict", [TASKS], {"context": None, "login": None, "password": None}],
    ]


def test_events_it_knows_make_a_model_and_call_fit(outcome: dict[str, Any]) -> None:
    construct = ["__init__", [PROJECT], {"label_config": CONFIG}]
    data = {"project": {"id": int(PROJECT), "label_config": CONFIG}}
    assert outcome["annotation"]["calls"] == [construct, ["fit", ["ANNOTATION_CREATED", data], {}]]
    assert outcome["start training"]["calls"] == [construct, ["fit", ["START_TRAINING", data], {}]]


def test_options_work_as_text_and_as_object_and_stay_without_any(outcome: dict[str, Any]) -> None:
    strategies = [outcome[f"strategy after {way}"]["body"]["strategy"] for way in ("text", "object", "none")]
    assert strategies == ["margin", "badge", "badge"]


def test_refusals_keep_their_status_and_words_and_show_no_traceback(outcome: dict[str, Any]) -> None:
    bad, early = outcome["bad options"], outcome["predict before setup"]
    assert bad["status"].startswith("400 strategy 'bold' does not exist; choose one of")
    assert "strategy 'bold' does not exist" in bad["body"]["detail"]
    assert early["status"].startswith("404 ")
    assert f"mmal project attach --project {PROJECT}" in early["body"]["detail"]
    assert outcome["predict of junk"]["status"].startswith("400 tasks is no list of objects.")
    assert outcome["predict that fails"]["status"].startswith("500 The request failed; the log of the web process")
    assert "/srv/secret" not in json.dumps(outcome["predict that fails"]["body"])
    assert not any("Traceback" in json.dumps(reply["body"]) for reply in outcome.values())


def test_what_it_cannot_read_is_refused_in_words(outcome: dict[str, Any]) -> None:
    for name in (name for name in outcome if name.startswith("junk ")):
        assert outcome[name]["status"].startswith("400 "), name
        assert outcome[name]["body"]["detail"], name
        assert outcome[name]["calls"] == outcome[name]["noted"] == [], name
    assert "project: Input should be a valid string" in outcome['junk /setup {"project']["body"]["detail"]
    assert "params: Input should be a valid dictionary" in outcome['junk /predict {"project']["body"]["detail"]
    assert outcome["too large"]["status"].startswith("413 The request is larger than MMAL_MAX_REQUEST_BYTES")
    assert outcome["predict with odd params"]["status"] == "200 OK"


def test_its_log_holds_no_token_and_a_traceback_only_of_what_nobody_expected(session: SimpleNamespace) -> None:
    assert "strategy 'bold' does not exist" in session.log
    assert TOKEN not in session.log
    assert session.log.count("Traceback") == 1


def test_every_task_gets_one_valid_result(outcome: dict[str, Any]) -> None:
    results = outcome["predict"]["body"]["results"]
    check_rows(CONFIG, [{"task": task["id"], **result} for task, result in zip(TASKS, results, strict=True)])


def test_fit_notes_the_event_and_is_done(outcome: dict[str, Any]) -> None:
    assert outcome["start training"]["noted"] == ["START_TRAINING"]
    assert outcome["annotation"]["noted"] == ["ANNOTATION_CREATED"]
    assert outcome["annotation"]["body"] == {"result": {"status": "noted"}, "status": "ok"}
    assert outcome["annotation of a stranger"]["noted"] == []


def test_events_it_ignores_reach_us_by_our_own_webhook(outcome: dict[str, Any]) -> None:
    for kind in ("deletion", "bulk"):
        assert outcome[kind]["calls"] == outcome[kind]["noted"] == []
    assert outcome["deletion to our webhook"]["noted"] == ["ANNOTATIONS_DELETED"]
    assert outcome["bulk to our webhook"]["noted"] == ["ANNOTATIONS_CREATED"]


def test_health_and_versions_answer_as_under_our_own_server(outcome: dict[str, Any]) -> None:
    assert outcome["health"]["body"]["model_class"] == "MultimodalActiveLearner"
    assert outcome["versions"]["body"] == {"versions": ["v0-live"]}


def test_label_studio_ml_start_serves_from_any_folder(tmp_path: Path) -> None:
    port = free_port()
    # `label-studio-ml start DIR` runs `python DIR/_wsgi.py` with the options it was given.
    command = [sys.executable, str(REPOSITORY / "backend" / "_wsgi.py"), "--port", str(port)]
    working = tmp_path / "somewhere"
    working.mkdir()
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--basic-auth-user", "studio", "--basic-auth-pass", "s3cret"],
            env=environment(tmp_path / "data", stand_in=True), cwd=working, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"

        def answer() -> requests.Response | None:
            assert server.poll() is None, log.read_text()
            try:
                return requests.post(f"{address}/setup", json=SETUP, auth=("studio", "s3cret"), timeout=5)
            except requests.ConnectionError:
                return None

        reply = wait_for("the official server to answer", answer)
        assert reply is not None and reply.json() == {"model_version": "v0-live"}
        strangers = [{}, basic("studio:fälsch"), basic("größe:s3cret"), {"Authorization": "Bearer s3cret"}]
        for path, stranger in itertools.product(("/setup", "/predict", "/webhook", "/api/projects"), strangers):
            refused = requests.post(address + path, json=SETUP, headers=stranger, timeout=5)
            assert refused.status_code == 401, (path, stranger)
        assert requests.get(f"{address}/health", timeout=5).json()["status"] == "UP"
        # The cache that the package makes when it is imported goes where we may write.
        assert list(working.iterdir()) == []
    finally:
        server.terminate()
        server.wait(timeout=20)


def basic(credentials: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


@pytest.mark.parametrize(
    ("version", "words"),
    [("1.0.9", "label-studio-ml 1.0.9 is ignored: only version 2 and later fit"), ("2.0.1", "cannot be imported")],
)
def test_a_package_that_does_not_fit_is_ignored_with_a_line_in_the_log(
    version: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    information = tmp_path / f"label_studio_ml-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", None)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert official_base() is object
    assert words in caplog.text
    with pytest.raises(SystemExit, match="`mmal serve` needs no other server"):
        official_app(Settings(data_dir=tmp_path))
