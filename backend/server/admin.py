"""The admin API: the same few actions as the `mmal` command, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from backend.errors import OptionsInvalid
from backend.rounds.connecting import set_options
from backend.rounds.report import accuracy_curve_lines
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.store import projects
from backend.strategies import describe, strategy_names

routes = Blueprint("admin", __name__)


def _services() -> Services:
    services: Services = current_app.extensions["mmal"][0]
    return services


@routes.get("/strategies")
def strategies() -> ResponseReturnValue:
    """All strategies with their options."""
    infos = map(describe, [*strategy_names(), *strategy_names(pairs=True)])
    return jsonify([{**asdict(info), "needs": sorted(info.needs)} for info in infos])


@routes.get("/projects")
def list_projects() -> ResponseReturnValue:
    """The state of every project."""
    services = _services()
    return jsonify([asdict(project_status(services, p)) for p in projects.every(services.store)])


@routes.get("/projects/<int:project_id>")
def show_project(project_id: int) -> ResponseReturnValue:
    """The state of one project."""
    services = _services()
    return jsonify(asdict(project_status(services, projects.get(services.store, project_id), with_agreement=True)))


@routes.get("/projects/<int:project_id>/accuracy")
def show_accuracy(project_id: int) -> ResponseReturnValue:
    """How well the model does, round by round, by the control sample."""
    return jsonify(accuracy_curve_lines(_services(), project_id)[1])


@routes.patch("/projects/<int:project_id>/options")
def change_project(project_id: int) -> ResponseReturnValue:
    """Change options, such as ``{"strategy": "bmmal", "batch_size": 40}``; in force with the next batch."""
    changes: Any = request.get_json(silent=True)
    if not isinstance(changes, dict):
        raise OptionsInvalid('The body is not a JSON object. Send for example {"strategy": "bmmal"}')
    return jsonify(set_options(_services(), project_id, changes, why="the admin API").model_dump())


@routes.post("/projects/<int:project_id>/rounds")
def start_round(project_id: int) -> ResponseReturnValue:
    """Ask for a round now."""
    services = _services()
    projects.get(services.store, project_id)
    projects.request_round(services.store, project_id, "asked for by the admin API", at_once=True)
    return jsonify(status="requested"), 202
