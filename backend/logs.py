"""Log lines of all processes, as text or as JSON, each with the ids of what it belongs to."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar
from uuid import uuid4

from pythonjsonlogger.json import JsonFormatter

from backend.settings import Settings

T = TypeVar("T")
R = TypeVar("R")
FIELDS = ("request_id", "job", "project_id", "round_id")
"""What a line can belong to; only what applies is written."""
_NOTHING: Mapping[str, Any] = {}
_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=_NOTHING)
# Two lines a job, several jobs a minute, would bury what the rounds say.
TALKATIVE = ("huey", "alembic")
# These write the whole address of each picture, and its query may be a signature.
INDISCREET = ("httpx", "httpcore")
# What a proxy may choose: nothing that breaks a line or makes it long.
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


def configure(settings: Settings) -> None:
    """Have this process write its lines, and those of its libraries, to standard error; safe to repeat."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    quieten_libraries()


def quieten_libraries() -> None:
    """Whatever the level, lines of libraries that say too much are left out."""
    for name in (*TALKATIVE, *INDISCREET):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Lines of this block carry these fields, besides those of the block around it."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def bind(**fields: Any) -> None:
    """Add fields that are known only now; they last until the `context` around this call ends."""
    _context.set({**_context.get(), **fields})


def carried(function: Callable[[T], R]) -> Callable[[T], R]:
    """The function for threads of a pool: its lines carry the fields of the caller."""
    here = copy_context()
    return lambda argument: here.copy().run(function, argument)


def request_id(given: str) -> str:
    """The id a request came with, where it is sane; else a new one."""
    return given if SANE_ID.fullmatch(given) else uuid4().hex


def known(name: str) -> str:
    """A field of the block around the caller; empty where it has none."""
    return str(_context.get().get(name, ""))


class TextLines(logging.Formatter):
    """One line for a person, the ids in brackets at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before its traceback."""
        ids = " ".join(f"{name}={value}" for name, value in _known().items())
        return super().formatMessage(record) + (f" [{ids}]" if ids else "")


class JsonLines(JsonFormatter):
    """One JSON object a line: timestamp (UTC), level, logger, message, ids, exc_info."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            json_ensure_ascii=False,
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """The ids besides what the record says."""
        super().add_fields(log_data, record, message_dict)
        log_data.update(_known())


def _known() -> dict[str, Any]:
    fields = _context.get()
    return {name: fields[name] for name in FIELDS if name in fields}
