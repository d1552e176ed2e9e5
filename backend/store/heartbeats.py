"""Workers that live: each writes down every few seconds that it does, and what it knows."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import delete, select

from backend.store.database import Store
from backend.store.tables import Note

PREFIX = "worker "
# A worker whose last sign is older than this is not running, or cannot write.
ALIVE_SECONDS = 30.0
FORGOTTEN_SECONDS = 86400.0


class Heartbeat(NamedTuple):
    """The last sign of a worker; label_studio: whether it answered when last asked, None before that."""

    holder: str
    at: float
    label_studio: bool | None


def beat(store: Store, holder: str, label_studio: bool | None) -> None:
    """This worker lives; those that have been silent for a day are forgotten."""
    now = store.clock()
    value: dict[str, Any] = {"holder": holder, "at": now, "label_studio": label_studio}
    silent = [_name(h.holder) for h in every(store) if h.at < now - FORGOTTEN_SECONDS]
    with store.statement() as session:
        store.upsert(session, Note, [{"name": _name(holder), "value": value}], ["value"])
        if silent:
            session.execute(delete(Note).where(Note.name.in_(silent)))


def end(store: Store, holder: str) -> None:
    """This worker stops in peace."""
    with store.statement() as session:
        session.execute(delete(Note).where(Note.name == _name(holder)))


def every(store: Store) -> list[Heartbeat]:
    """All known workers, the one with the latest sign first."""
    with store.reading() as session:
        values = session.scalars(select(Note.value).where(Note.name.startswith(PREFIX)))
        found = [Heartbeat(v["holder"], float(v["at"]), v["label_studio"]) for v in values]
    return sorted(found, key=lambda heartbeat: -heartbeat.at)


def alive(store: Store) -> list[str]:
    """Names of the workers that are running."""
    return [heartbeat.holder for heartbeat in every(store) if heartbeat.at > store.clock() - ALIVE_SECONDS]


def _name(holder: str) -> str:
    return PREFIX + holder[-(64 - len(PREFIX)) :]
