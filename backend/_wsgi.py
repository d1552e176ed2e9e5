"""What `label-studio-ml start backend` runs: the official server, version 2.x, with our model (docs/operations.md).

The official server answers /setup, /predict and /webhook. Everything else, above all our own webhook /events, the
admin API and /health, is answered by our application in the same process. The worker runs beside it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from pydantic import BaseModel, SecretStr, ValidationError

from backend import logs
from backend.errors import MmalError, RequestInvalid
from backend.model import MultimodalActiveLearner
from backend.official_base import OLDEST_MAJOR, PACKAGE, official_base
from backend.server import gunicorn_app
from backend.server.app import create_app, equip
from backend.server.protocol import checked_tasks
from backend.server.refusals import explain, status_line
from backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class SetupBody(BaseModel):
    """What the official server reads of a /setup before it comes to the model."""

    project: str


class PredictBody(BaseModel):
    """The same of a /predict."""

    params: dict[str, Any] = {}


class EventProject(BaseModel):
    """The project an event is about."""

    id: int | str
    label_config: Any


class EventBody(BaseModel):
    """The same of a /webhook."""

    action: str
    project: EventProject


OFFICIAL_BODIES: Mapping[str, type[BaseModel]] = {
    "/setup": SetupBody,
    "/predict": PredictBody,
    "/webhook": EventBody,
}
"""The routes that are left to the official server."""


def official_app(settings: Settings | None = None) -> Flask:
    """The official server's application, around our model and beside ours."""
    settings = settings or load_settings()
    _require_package()
    from label_studio_ml.api import init_app

    logs.configure(settings)
    # It logs a traceback for each refusal, which has a line of ours.
    logging.getLogger("label_studio_ml.exceptions").setLevel(logging.CRITICAL)
    ours = create_app(settings)
    app: Flask = init_app(_model_class(ours.extensions["mmal"]))
    # Its own hooks fail at a password with letters outside ASCII, read a body of any size before they ask for one,
    # log headers and bodies, and show what a failure says of this machine.
    for hooks in (app.before_request_funcs, app.after_request_funcs, app.error_handler_spec):
        hooks.clear()
    app.wsgi_app = _beside(app.wsgi_app, ours.wsgi_app)  # type: ignore[assignment,method-assign]
    equip(app, ours.extensions["mmal"])
    app.before_request(_refuse_unreadable)
    return app


def _require_package() -> None:
    if official_base() is object:
        sys.exit(
            f"{PACKAGE} {OLDEST_MAJOR}.x is not installed here (docs/operations.md names the commit to install)."
            " `mmal serve` needs no other server."
        )


def _model_class(shared: Any) -> type[MultimodalActiveLearner]:
    class Model(MultimodalActiveLearner):
        """Our hooks, whose refusals the official server passes on in words instead of a traceback."""

        def __init__(self, project_id: str | None = None, label_config: Any = None) -> None:
            super().__init__(project_id, str(label_config or ""), shared)

        def get(self, key: str) -> str | None:
            with _in_words():
                return super().get(key)

        # Positional only: what a request names in `params` comes as keywords, whatever it is called.
        def predict(  # type: ignore[override]
            self, tasks: Any, /, context: Any = None, **kwargs: Any
        ) -> Any:
            with _in_words():
                return super().predict(checked_tasks(tasks), context)

    Model.__name__ = MultimodalActiveLearner.__name__
    return Model


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn failures into the one exception of the official server that keeps status and words."""
    from label_studio_ml.exceptions import AnswerException

    try:
        yield
    except Exception as error:
        status, words = explain(error)
        # Label Studio shows the reason phrase only. A result without `traceback` would be given one.
        raise AnswerException(status_line(status, words), words, {"traceback": ""}) from error


def _refuse_unreadable() -> None:
    """Refuse in words the bodies at which the official server fails before it comes to the model."""
    body = OFFICIAL_BODIES.get(request.path)
    if body is None or request.method != "POST":
        return
    try:
        body.model_validate(request.get_json())
    except ValidationError as error:
        # Not the value: it may hold a token.
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors())
        raise RequestInvalid(f"{wrong}. Send what Label Studio sends to {request.path}") from None


def _beside(official: WSGIApplication, ours: WSGIApplication) -> WSGIApplication:
    def dispatch(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chosen = official if environ.get("PATH_INFO") in OFFICIAL_BODIES else ours
        return chosen(environ, start_response)

    return dispatch


def main() -> None:
    """Serve until interrupted, with the options `label-studio-ml start` passes on."""
    given = {name: value for name, value in vars(_options()).items() if value is not None}
    if "basic_auth_pass" in given:
        given["basic_auth_pass"] = SecretStr(given["basic_auth_pass"])
    _require_package()
    try:
        gunicorn_app.run(load_settings().model_copy(update=given), official_app)
    except MmalError as error:
        sys.exit(str(error))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The official server with this backend's model.")
    parser.add_argument("-p", "--port", type=int, help="Port to listen on; default: PORT.")
    parser.add_argument("--host", help="Address to listen on; default: MMAL_HOST.")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="Default: MMAL_LOG_LEVEL.")
    parser.add_argument("--basic-auth-user", help="Default: BASIC_AUTH_USER.")
    parser.add_argument("--basic-auth-pass", help="Default: BASIC_AUTH_PASS.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
