"""Refusals and failures as answers: words and a status, never a traceback."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, json
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from backend import logs
from backend.errors import (
    ConfigurationError,
    ForeignPredictions,
    LabelConfigUnsupported,
    LabelStudioError,
    MmalError,
    ProjectUnknown,
    RequestTooLarge,
    StoreError,
    TaskUnknown,
)

log = logging.getLogger(__name__)

STATUS: list[tuple[type[MmalError], int]] = [
    (ProjectUnknown, 404),
    (TaskUnknown, 404),
    (ForeignPredictions, 409),
    (RequestTooLarge, 413),
    (ConfigurationError, 400),
    (LabelConfigUnsupported, 400),
    (LabelStudioError, 502),
    (StoreError, 503),
]


def register(app: Flask) -> None:
    """Have every failure of a request answered by this module."""
    app.register_error_handler(MmalError, _explain)
    app.register_error_handler(HTTPException, _explain_http)
    app.register_error_handler(Exception, _explain_unexpected)


def status_of(error: MmalError) -> int:
    """The HTTP status that says the same."""
    return next((code for kind, code in STATUS if isinstance(error, kind)), 500)


def explain(error: Exception) -> tuple[int, str]:
    """Log a failure; its status, and the words its caller may read."""
    if isinstance(error, MmalError):
        # In one line: what a caller sent must not look like a line of the log.
        log.warning("%s: %s", type(error).__name__, " ".join(str(error).split()))
        return status_of(error), str(error)
    log.error("request failed", exc_info=error)
    return 500, f"The request failed; the log of the web process says why, at request_id={logs.known('request_id')}"


def _explain(error: MmalError) -> Response:
    return refusal(*explain(error), type(error).__name__)


def _explain_http(error: HTTPException) -> Response:
    words = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        words = "The request is larger than MMAL_MAX_REQUEST_BYTES allows. Send fewer tasks at once, or raise it"
    answer = refusal(error.code or 500, words, type(error).__name__)
    answer.headers.extend((name, value) for name, value in error.get_headers() if name in ("Allow", "Retry-After"))
    return answer


def _explain_unexpected(error: Exception) -> Response:
    return refusal(*explain(error), "InternalError")


def refusal(status: int, message: str, kind: str) -> Response:
    """An error with its words in the body and in the HTTP reason phrase.

    Label Studio's dialogs show nothing of the body, only the reason phrase (docs/label-studio.md).
    """
    body: dict[str, Any] = {"error": kind, "detail": message}
    return Response(json.dumps(body), status=status_line(status, message), mimetype="application/json")


def status_line(status: int, message: str) -> str:
    """Status and reason phrase, one short line of ASCII whatever the message."""
    words = " ".join(message.split()).encode("ascii", "replace").decode()[:400]
    return f"{status} " + "".join(c if c.isprintable() else "?" for c in words)
