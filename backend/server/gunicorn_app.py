"""The web process: gunicorn with a few threaded workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from gunicorn.glogging import Logger

from backend import logs
from backend.rounds.hangup import end_on_hangup
from backend.server.app import create_app
from backend.server.authentication import check_exposure
from backend.server.opening import OpensWhenItCan
from backend.settings import Settings

log = logging.getLogger(__name__)


class OurLines(Logger):
    """Gunicorn's own lines in the format of all others."""

    def setup(self, cfg: Config) -> None:
        """Leave the writing to the root logger; the access line is ours (`request_ids`)."""
        super().setup(cfg)
        self.error_log.propagate = True


class WebProcess(BaseApplication):
    """Gunicorn, configured by our settings and by nothing else."""

    def __init__(self, settings: Settings, make: Callable[[Settings], Flask]) -> None:
        self.settings = settings
        self.make = make
        super().__init__()

    def load_config(self) -> None:
        """Settings to gunicorn's names."""
        host = self.settings.host
        options: dict[str, Any] = {
            # An IPv6 address stands in brackets.
            "bind": f"{f'[{host}]' if ':' in host else host}:{self.settings.port}",
            "workers": self.settings.web_workers,
            "threads": self.settings.web_threads,
            "worker_class": "gthread",
            # Longer than Label Studio waits for /predict.
            "timeout": 120,
            "graceful_timeout": 5,
            "keepalive": 30,
            "proc_name": "mmal-web",
            "accesslog": None,
            "errorlog": None,
            "when_ready": _ready,
            "loglevel": "warning",
            "logger_class": OurLines,
            # Nobody who speaks the protocol needs more: a request line or header that does is answered with 400.
            "limit_request_line": 4094,
            "limit_request_fields": 64,
            "limit_request_field_size": 8190,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> OpensWhenItCan:
        """The application, made in each worker: connections must not cross a fork."""
        return OpensWhenItCan(lambda: self.make(self.settings))


def _ready(server: Any) -> None:
    end_on_hangup()
    log.info("listening at %s", ", ".join(map(str, server.LISTENERS)))


def run(settings: Settings, make: Callable[[Settings], Flask] = create_app) -> None:
    """Serve the application that `make` makes, until SIGTERM, SIGINT or SIGHUP.

    Raises
    ------
    CredentialsMissing
        Others could reach it, and nothing tells them from Label Studio.
    """
    check_exposure(settings)
    logs.configure(settings)
    WebProcess(settings, make).run()
