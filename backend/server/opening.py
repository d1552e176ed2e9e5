"""The web process while its store cannot be opened: every request is answered, in words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Flask

from backend.errors import StoreError
from backend.server.refusals import refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)


class OpensWhenItCan:
    """The application once it can be made; until then 503 with the reason, and each request tries again.

    Parameters
    ----------
    make
        Makes the application; raises StoreError while the store is damaged or the disk full.
    """

    def __init__(self, make: Callable[[], Flask]) -> None:
        self._make = make
        self._app: Flask | None = None
        self._lock = threading.Lock()
        self._reason = ""
        self._open()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        problem = None if self._app is not None else self._open()
        if problem is not None:
            return refusal(503, str(problem), type(problem).__name__)(environ, start_response)
        assert self._app is not None
        return self._app(environ, start_response)

    def _open(self) -> StoreError | None:
        with self._lock:
            if self._app is not None:
                return None
            try:
                self._app = self._make()
            except StoreError as problem:
                if self._reason != str(problem):
                    self._reason = str(problem)
                    log.error("%s (%s; tried again with each request)", problem, type(problem).__name__)
                return problem
            return None
