"""The routes Label Studio calls, as version 1.23 calls them (docs/label-studio.md)."""

from __future__ import annotations

import hmac
from typing import Any

from flask import Blueprint, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from backend.errors import RequestInvalid, RequestTooLarge
from backend.model import MultimodalActiveLearner
from backend.rounds.answering import Answerer
from backend.rounds.publishing import live_version
from backend.rounds.services import Services
from backend.store import notes, projects

routes = Blueprint("protocol", __name__)
# Label Studio asks for the tasks of one page at a time; its largest action has 5,000.
MOST_TASKS = 10_000
LONGEST_ACTION = 64


def _shared() -> tuple[Services, Answerer]:
    shared: tuple[Services, Answerer] = current_app.extensions["mmal"]
    return shared


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    return body if isinstance(body, dict) else {}


def checked_tasks(given: Any) -> list[dict[str, Any]]:
    """The tasks of a request for predictions.

    Raises
    ------
    RequestInvalid, RequestTooLarge
    """
    tasks = given or []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise RequestInvalid('tasks is no list of objects. Send for example {"tasks": [{"id": 1, "data": {}}]}')
    if len(tasks) > MOST_TASKS:
        raise RequestTooLarge(
            f"tasks holds {len(tasks)} tasks, at most {MOST_TASKS} are answered at once. Send fewer"
        )
    return tasks


@routes.get("/")
@routes.get("/health")
def health() -> ResponseReturnValue:
    """Label Studio asks this before every /setup and gives up after a second."""
    return jsonify(status="UP", model_class=MultimodalActiveLearner.__name__, version=current_app.config["VERSION"])


@routes.post("/setup")
def setup() -> ResponseReturnValue:
    """Answer at once with a version that is never published, and take over changed options."""
    body = _body()
    model = MultimodalActiveLearner(body.get("project"), str(body.get("schema") or ""), _shared())
    model.set_extra_params(body.get("extra_params"))
    return jsonify(model_version=model.get("model_version"))


@routes.post("/predict")
def predict() -> ResponseReturnValue:
    """One valid result a task."""
    body = _body()
    model = MultimodalActiveLearner(body.get("project"), str(body.get("label_config") or ""), _shared())
    return jsonify(results=model.predict(checked_tasks(body.get("tasks"))))


@routes.post("/webhook")
def webhook() -> ResponseReturnValue:
    """Start Training, and what the automatic webhook sends before it is removed."""
    return _note(_body())


@routes.post("/events")
def events_hook() -> ResponseReturnValue:
    """Our own webhook; it proves itself by a secret of this store."""
    secret = notes.events_secret(_shared()[0].store)
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(errors="replace"), f"Bearer {secret}".encode()):
        return jsonify(detail="The Authorization header does not carry the secret of this backend's webhook."), 401
    return _note(_body())


def _note(body: dict[str, Any]) -> ResponseReturnValue:
    project = body.get("project")
    model = MultimodalActiveLearner(project.get("id") if isinstance(project, dict) else project, shared=_shared())
    outcome = model.fit(str(body.get("action") or "UNKNOWN")[:LONGEST_ACTION], body)
    return jsonify(outcome), 201 if outcome["status"] == "noted" else 202


@routes.get("/versions")
def versions() -> ResponseReturnValue:
    """Label Studio sends no project, so this names the versions of all."""
    known = sorted({live_version(project.version) for project in projects.every(_shared()[0].store)})
    return jsonify(versions=known or [live_version("")])
