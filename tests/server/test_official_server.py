"""Under `label-studio-ml start backend`: what version 2.x calls, and that its faults do not reach our users.

Every check runs against a stand-in, and against the real package too where version 2 is importable.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from backend._wsgi import official_app
from backend.labelstudio.predictions import check_rows
from backend.official_base import PACKAGE, official_base
from backend.settings import Settings
from tests.live.backend_process import free_port, wait_for
from tests.server.conftest import requests_in

REPOSITORY = Path(__file__).parents[2]
STAND_IN = Path(__file__).parents[1] / "fixtures" / "label_studio_ml_stand_in"
SETUP = requests_in("01_connect.json")[1]["body"]
PROJECT = SETUP["project"].split(".")[0]
CONFIG = SETUP["schema"]
TASKS = [{"id": n, "data": {"image": "", "caption": f"caption {n}"}} for n in (1, 2)]


def installed() -> bool:
    try:
        return int(importlib.metadata.version(PACKAGE).split(".")[0]) >= 2
    except importlib.metadata.PackageNotFoundError:
        return False


def setup(extra_params: Any = None) -> dict[str, Any]:
    return {"method": "POST", "path": "/setup", "body": {**SETUP, "extra_params": extra_params}}


def predict(project: str) -> dict[str, Any]:
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": TASKS, "project": project, "label_config": CONFIG, "params": params}
    return {"method": "POST", "path": "/predict", "body": body}


def event(action: str, path: str = "/webhook", project: str = PROJECT) -> dict[str, Any]:
    body = {"action": action, "project": {"id": int(project), "label_config": CONFIG}}
    return {"method": "POST", "path": path, "body": body}


def look(path: str) -> dict[str, Any]:
    return {"method": "GET", "path": path}


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
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Replies and calls, one of each request."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.server.official_driver"],
        input=json.dumps(list(REQUESTS.values())),
        env=environment(tmp_path_factory.mktemp("official"), stand_in=request.param == "stand-in"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["derived"]
    return dict(zip(REQUESTS, found["replies"], strict=True))


def environment(data_dir: Path, *, stand_in: bool) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("MMAL_", "BASIC_AUTH_", "MODEL_DIR"))}
    paths = [str(REPOSITORY), *([str(STAND_IN)] if stand_in else []), given.get("PYTHONPATH", "")]
    return {
        **given,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MMAL_DATA_DIR": str(data_dir),
        "MMAL_ENCODER": "import:tests.live.toy_encoder:make",
        "MMAL_PREDICT_SECONDS": "0",
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
    assert outcome["predict of junk"]["status"] == "500 The request failed; the backend's log says why"
    assert not any("Traceback" in json.dumps(reply["body"]) for reply in outcome.values())


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
        for path in ("/setup", "/api/projects"):
            assert requests.request("POST", address + path, json=SETUP, timeout=5).status_code == 401
        # The cache that the package makes when it is imported goes where we may write.
        assert list(working.iterdir()) == []
    finally:
        server.terminate()
        server.wait(timeout=20)


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
