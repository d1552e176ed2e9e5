"""Events: hints that something changed. Written in the request, drained by the worker."""

from __future__ import annotations

import time
from collections import Counter

from sqlalchemy import delete, func, select

from backend.store.database import Store
from backend.store.tables import Event


def add(store: Store, project_id: int, action: str) -> None:
    """Note one event; a single short write, so that a webhook is answered within milliseconds."""
    with store.writing() as session:
        session.add(Event(project_id=project_id, action=action, received_at=time.time()))


def waiting(store: Store) -> int:
    """How many events no worker has seen yet."""
    with store.reading() as session:
        return session.scalar(select(func.count()).select_from(Event)) or 0


def peek(store: Store) -> tuple[int, dict[int, Counter[str]]]:
    """The number of the last event and the count of each action by project.

    The caller acts on them first and calls `forget` afterwards: a crash between the two repeats the
    hints, which costs one poll, and loses none.
    """
    with store.reading() as session:
        last = session.scalar(select(func.max(Event.id))) or 0
        found: dict[int, Counter[str]] = {}
        rows = session.execute(
            select(Event.project_id, Event.action, func.count()).group_by(Event.project_id, Event.action)
        )
        for project_id, action, count in rows:
            found.setdefault(project_id, Counter())[action] = count
        return last, found


def forget(store: Store, up_to: int) -> None:
    """Drop the events up to this number."""
    with store.writing() as session:
        session.execute(delete(Event).where(Event.id <= up_to))
