"""Each request has an id: the one it came with or a new one, in its reply and in every line it causes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, request

from backend import logs
from backend.rounds import measures
from backend.rounds.services import Services

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
STARTED = "mmal.started"


class RequestIds:
    """Around the application, so that refusals and failures carry the id as well."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if STARTED in environ:  # under the official server, whose application is around ours
            return self._app(environ, start_response)
        request_id = logs.request_id(environ.get("HTTP_X_REQUEST_ID", ""))
        environ[STARTED] = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            return start_response(status, [*headers, (HEADER, request_id)], exc_info)

        with logs.context(request_id=request_id):
            return self._app(environ, start)


def seconds_taken() -> float:
    """Since this request arrived."""
    return time.perf_counter() - float(request.environ[STARTED])


def note_request(response: Response) -> Response:
    """Count the request, and one line without query, headers or body: these may hold secrets."""
    services: Services = current_app.extensions["mmal"][0]
    # Not the path: anybody can ask for any number of them.
    route = request.url_rule.rule if request.url_rule else "unknown"
    method = request.method if request.method in METHODS else "other"
    services.tally.count(measures.REQUESTS, method, route, response.status_code)
    services.tally.observe(measures.REQUEST_SECONDS, route, seconds=seconds_taken())
    log.debug("%s %s %d in %.1f ms", request.method, request.path, response.status_code, 1000 * seconds_taken())
    return response
