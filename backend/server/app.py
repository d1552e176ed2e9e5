"""The web application."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, json
from werkzeug.exceptions import HTTPException

from backend import __version__
from backend.errors import (
    ConfigurationError,
    ForeignPredictions,
    LabelConfigUnsupported,
    LabelStudioError,
    MmalError,
    ProjectUnknown,
    StoreError,
    TaskUnknown,
)
from backend.rounds.answering import Answerer
from backend.rounds.services import Services
from backend.server import admin, metrics, protocol
from backend.server.authentication import require_basic_auth
from backend.server.request_ids import RequestIds, note_request
from backend.settings import Settings, load_settings

log = logging.getLogger(__name__)

STATUS: list[tuple[type[MmalError], int]] = [
    (ProjectUnknown, 404),
    (TaskUnknown, 404),
    (ForeignPredictions, 409),
    (ConfigurationError, 400),
    (LabelConfigUnsupported, 400),
    (LabelStudioError, 502),
    (StoreError, 503),
]


def create_app(settings: Settings | None = None) -> Flask:
    """The Flask application of a web process; gunicorn calls this."""
    settings = settings or load_settings()
    app = Flask("mmal")
    services = Services(settings)
    app.extensions["mmal"] = (services, Answerer(services))
    app.wsgi_app = RequestIds(app.wsgi_app)  # type: ignore[method-assign]
    app.after_request(note_request)
    app.before_request(require_basic_auth)
    app.register_blueprint(protocol.routes)
    app.register_blueprint(admin.routes, url_prefix="/api")
    app.register_blueprint(metrics.routes)
    app.register_error_handler(MmalError, _explain)
    app.register_error_handler(HTTPException, _explain_http)
    app.config["VERSION"] = __version__
    return app


def _explain(error: MmalError) -> Response:
    log.warning("%s: %s", type(error).__name__, error)
    return refusal(status_of(error), str(error), type(error).__name__)


def status_of(error: MmalError) -> int:
    """The HTTP status that says the same."""
    return next((code for kind, code in STATUS if isinstance(error, kind)), 500)


def _explain_http(error: HTTPException) -> Response:
    return refusal(error.code or 500, error.description or error.name, type(error).__name__)


def refusal(status: int, message: str, kind: str) -> Response:
    """An error with its words in the body and in the HTTP reason phrase.

    Label Studio's dialogs show nothing of the body, only the reason phrase (docs/label-studio.md).
    """
    body: dict[str, Any] = {"error": kind, "detail": message}
    return Response(json.dumps(body), status=status_line(status, message), mimetype="application/json")


def status_line(status: int, message: str) -> str:
    """Status and reason phrase, one short line of ASCII whatever the message."""
    return f"{status} " + " ".join(message.split()).encode("ascii", "replace").decode()[:400]
