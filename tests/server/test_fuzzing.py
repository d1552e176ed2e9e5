"""Whatever is sent to whichever route: a clear answer, never a failure of ours, and nothing in the store is lost.

MMAL_FUZZ_CASES is the number of requests a route that takes something gets (`make fuzz` sends many more).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from backend.rounds.options import ProjectOptions
from backend.rounds.services import Services
from backend.server.app import create_app
from backend.settings import Settings
from backend.store import events, notes, projects, rounds, tasks
from tests.live.pool import CONFIG

CASES = int(os.environ.get("MMAL_FUZZ_CASES", "100"))
SPECIFICATION = Path(__file__).parents[2] / "backend" / "server" / "openapi.yaml"
DOCUMENT = yaml.safe_load(SPECIFICATION.read_text())
PROJECT = 7
METHODS = ("get", "post", "patch", "put", "delete")
OPERATIONS = [(m.upper(), path) for path, item in DOCUMENT["paths"].items() for m in item if m in METHODS]


def often(count: int) -> settings:
    """So many requests, the same ones at each run of the tests, new ones at each longer run."""
    return settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize="MMAL_FUZZ_CASES" not in os.environ,
    )


@contextmanager
def project_with_everything(folder: Path) -> Iterator[Flask]:
    """A web process with one attached project that has tasks, labels and a published queue."""
    app = create_app(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make", predict_seconds=0.0))
    store = app.extensions["mmal"][0].store
    options = ProjectOptions(batch_size=10).model_dump()
    projects.remember(store, PROJECT, state="attached", label_config=CONFIG, options=options, title="Fuzzed")
    tasks.remember(store, PROJECT, [tasks.Inputs(n, "", f"text {n}") for n in range(1, 21)])
    tasks.label(store, PROJECT, [tasks.Labelling(n, "label", ["warm"]) for n in range(1, 6)])
    opened = rounds.start(
        store, PROJECT, number=1, version="v1-auto", trigger="", strategy="auto", options={}, seed=0
    )
    entries = [{"project_id": PROJECT, "task_id": n, "reason": "typical", "role": "batch"} for n in range(6, 21)]
    rounds.set_queue(store, opened.id, entries)
    rounds.put_in_force(store, opened)
    yield app
    store.engine.dispose()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with project_with_everything(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


def kept(app: Flask) -> dict[str, Any]:
    """What no request may change: labels, queue, version in force, and the project as it is attached."""
    services: Services = app.extensions["mmal"][0]
    project = projects.get(services.store, PROJECT)
    in_force = rounds.in_force(services.store, project)
    assert in_force is not None
    # What a request may change must still be readable afterwards.
    ProjectOptions(**project.options)
    return {
        "project": (project.state, project.label_config, project.version, project.title, project.round_number),
        "labels": tasks.counts(services.store, PROJECT, services.encoder_id).by_label,
        "queue": [(entry.task_id, entry.rank, entry.role) for entry in rounds.queue(services.store, in_force.id)],
        "round": {column.name: getattr(in_force, column.name) for column in in_force.__table__.columns},
    }


def test_the_specification_names_every_route_and_no_other(app: Flask) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+(?:\(.*?\))?:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_makes_a_route_fail_or_lose_anything(app: Flask, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.app = app
    operation = schema[path][method]
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    takes_something = bool(operation.body) or bool(operation.path_parameters)
    secret = notes.events_secret(app.extensions["mmal"][0].store)
    headers = {"Authorization": f"Bearer {secret}"} if path == "/events" else {}
    before, noted = kept(app), events.waiting(app.extensions["mmal"][0].store)
    accepted = 0

    @often(CASES if takes_something else 5)
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def send(case: schemathesis.Case) -> None:
        nonlocal accepted
        if "project_id" in (case.path_parameters or {}) and case.path_parameters["project_id"] in (1, 2, 3):
            case.path_parameters["project_id"] = PROJECT
        answer = case.call(headers=headers)
        accepted += answer.status_code == 201
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        if answer.status_code not in (404, 405):
            case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])

    send()
    assert kept(app) == before
    assert events.waiting(app.extensions["mmal"][0].store) == noted + accepted
