"""The routes Label Studio calls, fed with what it really sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.labelstudio.predictions import check_rows
from backend.rounds.services import Services
from backend.store import events, notes, projects
from backend.strategies import strategy_names
from tests.server.conftest import captured, requests_in

SETUP = requests_in("01_connect.json")[1]["body"]
PROJECT = int(SETUP["project"].split(".")[0])


def setup_body(**changes: Any) -> dict[str, Any]:
    return {**SETUP, **changes}


@pytest.mark.parametrize("body", captured("POST", "/setup"))
def test_setup_answers_with_a_version_that_is_never_published(web: FlaskClient, body: dict[str, Any]) -> None:
    if isinstance(body["extra_params"], dict):
        body = {**body, "extra_params": None}
    answer = web.post("/setup", json=body)
    assert answer.status_code == 200
    assert answer.get_json() == {"model_version": "v0-live"}


@pytest.mark.parametrize("body", captured("POST", "/predict"))
def test_every_captured_predict_gets_one_valid_result_a_task(web: FlaskClient, body: dict[str, Any]) -> None:
    project = str(body["project"])
    web.post("/setup", json=setup_body(project=project, schema=body["label_config"]))
    results = web.post("/predict", json=body).get_json()["results"]
    assert len(results) == len(body["tasks"])
    rows = [{"task": task["id"], **result} for task, result in zip(body["tasks"], results, strict=True)]
    check_rows(body["label_config"], rows)
    assert all(row["result"] == [] for row in rows)


@pytest.mark.parametrize("body", captured("POST", "/webhook"))
def test_every_captured_event_is_noted_for_its_project(
    web: FlaskClient, services: Services, body: dict[str, Any]
) -> None:
    project = body["project"]["id"] if isinstance(body["project"], dict) else int(str(body["project"]).split(".")[0])
    projects.remember(services.store, project, state="attached")
    assert web.post("/webhook", json=body).status_code == 201
    assert events.peek(services.store)[1] == {project: {body["action"]: 1}}


def test_events_carry_the_secret_of_this_store(web: FlaskClient, services: Services) -> None:
    projects.remember(services.store, 7, state="attached")
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 7}}
    assert web.post("/events", json=event).status_code == 401
    wrong = {"Authorization": "Bearer guessed"}
    assert web.post("/events", json=event, headers=wrong).status_code == 401
    right = {"Authorization": f"Bearer {notes.events_secret(services.store)}"}
    assert web.post("/events", json=event, headers=right).status_code == 201
    assert events.waiting(services.store) == 1


def test_a_burst_of_events_loses_none(web: FlaskClient, services: Services) -> None:
    projects.remember(services.store, 7, state="attached")
    header = {"Authorization": f"Bearer {notes.events_secret(services.store)}"}
    for _ in range(500):
        web.post("/events", json={"action": "ANNOTATION_UPDATED", "project": {"id": 7}}, headers=header)
    assert events.peek(services.store)[1][7]["ANNOTATION_UPDATED"] == 500


def test_events_of_unconnected_projects_are_ignored(web: FlaskClient, services: Services) -> None:
    assert web.post("/webhook", json={"action": "START_TRAINING", "project": "99.1"}).status_code == 202
    assert events.waiting(services.store) == 0


@pytest.mark.parametrize("junk", [b"", b"not json", b"[1, 2]", b'{"project": null}', b'{"project": {"id": "x"}}'])
def test_junk_events_are_no_server_error(web: FlaskClient, junk: bytes) -> None:
    assert web.post("/webhook", data=junk, content_type="application/json").status_code == 202


@pytest.mark.parametrize(
    "sent", ['{"strategy": "margin"}', {"strategy": "margin"}, ' {"strategy":"margin", "batch_size": 40} ']
)
def test_options_arrive_as_text_or_object(web: FlaskClient, services: Services, sent: Any) -> None:
    assert web.post("/setup", json=setup_body(extra_params=sent)).status_code == 200
    assert projects.get(services.store, PROJECT).options["strategy"] == "margin"


@pytest.mark.parametrize("nothing", [None, "", "{}", "[object Object]", {}])
def test_empty_options_and_the_forms_artefact_change_nothing(
    web: FlaskClient, services: Services, nothing: Any
) -> None:
    web.post("/setup", json=setup_body(extra_params='{"strategy": "margin"}'))
    assert web.post("/setup", json=setup_body(extra_params=nothing)).status_code == 200
    assert projects.get(services.store, PROJECT).options["strategy"] == "margin"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ('{"strategy": "bold"}', f"strategy 'bold' does not exist; choose one of {', '.join(strategy_names())}"),
        ('{"stratgy": "auto"}', "Unknown option 'stratgy'. Use: strategy, strategy_options, batch_size"),
        ('{"batch_size": 0}', "batch_size = '0' cannot be used"),
        ('{"strategy": "badge", "strategy_options": {"x": 1}}', "strategy 'badge' has no option 'x'"),
        ("strategy=margin", "extra_params = 'strategy=margin' is not JSON. Write for example"),
        ("[1]", "is not an object"),
    ],
)
def test_bad_options_are_refused_in_the_reason_phrase_and_change_nothing(
    web: FlaskClient, services: Services, sent: str, words: str
) -> None:
    web.post("/setup", json=setup_body(extra_params='{"strategy": "margin"}'))
    before = projects.get(services.store, PROJECT).options
    answer = web.post("/setup", json=setup_body(extra_params=sent))
    assert answer.status_code == 400
    assert words in answer.status
    assert words in answer.get_json()["detail"]
    assert projects.get(services.store, PROJECT).options == before


def test_a_look_at_the_settings_does_not_switch_a_strategy_back(web: FlaskClient, services: Services) -> None:
    body = setup_body(extra_params='{"strategy": "margin"}')
    web.post("/setup", json=body)
    web.patch(f"/api/projects/{PROJECT}/options", json={"strategy": "bmmal"})
    for _ in range(3):
        web.post("/setup", json=body)
    assert projects.get(services.store, PROJECT).options["strategy"] == "bmmal"


def test_an_unsupported_label_config_is_refused_with_what_is_missing(web: FlaskClient) -> None:
    answer = web.post("/setup", json=setup_body(schema='<View><Image name="i" value="$image"/></View>'))
    assert answer.status_code == 400
    assert "No Choices control" in answer.status


def test_predict_for_an_unknown_project_says_how_to_connect_it(web: FlaskClient) -> None:
    answer = web.post("/predict", json={"tasks": [], "project": "404.1", "label_config": "<View/>"})
    assert answer.status_code == 404
    assert "mmal project attach --project 404" in answer.get_json()["detail"]


def test_five_thousand_tasks_in_one_predict_get_five_thousand_results(web: FlaskClient) -> None:
    web.post("/setup", json=SETUP)
    tasks = [{"id": n, "data": {"image": "", "caption": f"caption {n}"}} for n in range(5000)]
    body = {"tasks": tasks, "project": SETUP["project"], "label_config": SETUP["schema"]}
    assert len(web.post("/predict", json=body).get_json()["results"]) == 5000


def test_versions_health_and_metrics_answer_without_a_project(web: FlaskClient) -> None:
    assert web.get("/versions").get_json() == {"versions": ["v0-live"]}
    assert web.get("/health").get_json()["status"] == "UP"
    assert "mmal_events_waiting 0.0" in web.get("/metrics").text


def test_metrics_name_each_attached_project(web: FlaskClient, services: Services) -> None:
    projects.remember(services.store, 7, state="attached")
    text = web.get("/metrics").text
    for name in ("queue_remaining", "last_publish_age", "unsynced_labels", "labels"):
        assert f'mmal_{name}{{project="7"}}' in text


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_basic_auth_guards_every_route_but_health_and_events(guarded: FlaskClient, path: str) -> None:
    assert guarded.get("/health").status_code == 200
    assert guarded.post(path, json=SETUP).status_code == 401
    assert guarded.post(path, json=SETUP, auth=("studio", "wrong")).status_code == 401
    assert guarded.post(path, json=SETUP, auth=("other", "s3cret")).status_code == 401
    assert guarded.post(path, json=SETUP, auth=("studio", "s3cret")).status_code != 401


def test_the_admin_api_lists_changes_and_refuses(web: FlaskClient, services: Services) -> None:
    web.post("/setup", json=SETUP)
    assert {"auto", "bmmal", "random"} <= {s["name"] for s in web.get("/api/strategies").get_json()}
    answer = web.patch(f"/api/projects/{PROJECT}/options", json={"strategy": "badge", "batch_size": 12})
    assert (answer.get_json()["strategy"], answer.get_json()["batch_size"]) == ("badge", 12)
    assert not projects.get(services.store, PROJECT).round_requested  # the first queue will have them anyway
    projects.remember(services.store, PROJECT, version="v1-auto")
    web.patch(f"/api/projects/{PROJECT}/options", json={"batch_size": 13})
    assert projects.get(services.store, PROJECT).round_requested
    refused = web.patch(f"/api/projects/{PROJECT}/options", json={"strategy": "bold"})
    assert refused.status_code == 400
    assert "choose one of" in refused.get_json()["detail"]
    assert web.patch("/api/projects/404/options", json={}).status_code == 404
    assert web.patch(f"/api/projects/{PROJECT}/options", data=b"x").status_code == 400
    assert web.get(f"/api/projects/{PROJECT}").get_json()["strategy"] == "badge"
    assert web.post(f"/api/projects/{PROJECT}/rounds").status_code == 202
    assert json.loads(web.get("/api/projects").text)[0]["project_id"] == PROJECT
