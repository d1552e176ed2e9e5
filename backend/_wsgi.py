"""What `label-studio-ml start backend` runs: the official server, version 2.x, with our model (docs/operations.md).

The official server answers /health, /setup, /predict and /webhook. What it does not know, above all our own webhook
/events and the admin API, is answered by our application in the same process. The worker runs beside it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask
from pydantic import SecretStr

from backend import logs
from backend.errors import MmalError
from backend.model import MultimodalActiveLearner
from backend.official_base import OLDEST_MAJOR, PACKAGE, official_base
from backend.server.app import create_app
from backend.server.refusals import status_line, status_of
from backend.server.request_ids import RequestIds
from backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

OFFICIAL_PATHS = frozenset({"/", "/health", "/setup", "/predict", "/webhook"})


def official_app(settings: Settings | None = None) -> Flask:
    """The official server's application, around our model and beside ours."""
    settings = settings or load_settings()
    if official_base() is object:
        sys.exit(
            f"{PACKAGE} {OLDEST_MAJOR}.x is not installed here (docs/operations.md names the commit to install)."
            " `mmal serve` needs no other server."
        )
    from label_studio_ml.api import init_app

    ours = create_app(settings)
    app: Flask = init_app(
        _model_class(ours.extensions["mmal"]),
        basic_auth_user=settings.basic_auth_user,
        basic_auth_pass=settings.basic_auth_pass.get_secret_value(),
    )
    app.wsgi_app = RequestIds(_beside(app.wsgi_app, ours.wsgi_app))  # type: ignore[method-assign]
    return app


def _model_class(shared: Any) -> type[MultimodalActiveLearner]:
    class Model(MultimodalActiveLearner):
        """Our hooks, whose refusals the official server passes on in words instead of a traceback."""

        def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
            super().__init__(project_id, label_config, shared)

        def get(self, key: str) -> str | None:
            with _in_words():
                return super().get(key)

        def predict(self, tasks: Any, context: Any = None, **kwargs: Any) -> Any:
            with _in_words():
                return super().predict(tasks, context, **kwargs)

    Model.__name__ = MultimodalActiveLearner.__name__
    return Model


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn failures into the one exception of the official server that keeps status and words."""
    from label_studio_ml.exceptions import AnswerException

    try:
        yield
    except MmalError as error:
        log.warning("%s: %s", type(error).__name__, error)
        status, words = status_of(error), str(error)
    except Exception:
        log.exception("a request failed")
        status, words = 500, "The request failed; the backend's log says why"
    else:
        return
    # Label Studio shows the reason phrase only. A result without `traceback` would be given one.
    raise AnswerException(status_line(status, words), words, {"traceback": ""})


def _beside(official: WSGIApplication, ours: WSGIApplication) -> WSGIApplication:
    def dispatch(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chosen = official if environ.get("PATH_INFO") in OFFICIAL_PATHS else ours
        return chosen(environ, start_response)

    return dispatch


def main() -> None:
    """Serve until interrupted, with the options `label-studio-ml start` passes on."""
    given = {name: value for name, value in vars(_options()).items() if value is not None}
    if "basic_auth_pass" in given:
        given["basic_auth_pass"] = SecretStr(given["basic_auth_pass"])
    try:
        settings = load_settings().model_copy(update=given)
        logs.configure(settings)
        app = official_app(settings)
    except MmalError as error:
        sys.exit(str(error))
    app.run(host=settings.host, port=settings.port, threaded=True)


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
