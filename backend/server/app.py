"""The web application."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from backend import __version__
from backend.json_reading import read_json
from backend.rounds.answering import Answerer
from backend.rounds.services import Services
from backend.server import admin, metrics, protocol, refusals
from backend.server.authentication import check_exposure, require_credentials
from backend.server.request_ids import RequestIds, note_request
from backend.settings import Settings, load_settings


class _GuardedJson(DefaultJSONProvider):
    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return read_json(s)


def create_app(settings: Settings | None = None) -> Flask:
    """The Flask application of a web process; gunicorn calls this.

    Raises
    ------
    CredentialsMissing
        Others could reach it, and nothing tells them from Label Studio.
    """
    settings = settings or load_settings()
    check_exposure(settings)
    app = Flask("mmal")
    services = Services(settings)
    equip(app, (services, Answerer(services)))
    app.register_blueprint(protocol.routes)
    app.register_blueprint(admin.routes, url_prefix="/api")
    app.register_blueprint(metrics.routes)
    app.config["VERSION"] = __version__
    return app


def equip(app: Flask, shared: tuple[Services, Answerer]) -> None:
    """Give an application what each of ours has: credentials, limits, request ids and figures, refusals in words."""
    app.extensions["mmal"] = shared
    app.json = _GuardedJson(app)
    app.config["MAX_CONTENT_LENGTH"] = shared[0].settings.max_request_bytes
    app.wsgi_app = RequestIds(app.wsgi_app)  # type: ignore[method-assign]
    app.after_request(note_request)
    app.before_request(require_credentials)
    refusals.register(app)
