"""Events: hints that something changed. Written in the request, drained by the worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete, func, select

from backend.store.database import Store
from backend.store.tables import Event
from backend.store.tasks import CHUNK

ACTION_LENGTH = 40


def add(store: Store, project_id: int, action: str) -> None:
    """Note one event; a single short write, so that a webhook is answered within milliseconds."""
    with store.statement() as session:
        session.add(Event(project_id=project_id, action=action[:ACTION_LENGTH], received_at=store.clock()))


def waiting(store: Store) -> int:
    """How many events no worker has seen yet."""
    with store.reading() as session:
        return session.scalar(select(func.count()).select_from(Event)) or 0


def peek(store: Store) -> tuple[list[int], dict[int, Counter[str]]]:
    """The numbers of the events that are there and the count of each action by project.

    The caller acts on them first and calls `forget` afterwards: a crash between the two repeats the
    hints, which costs one poll, and loses none.
    """
    with store.reading() as session:
        rows = session.execute(select(Event.id, Event.project_id, Event.action)).all()
    found: dict[int, Counter[str]] = {}
    for _, project_id, action in rows:
        found.setdefault(project_id, Counter())[action] += 1
    return [row[0] for row in rows], found


def forget(store: Store, numbers: Sequence[int]) -> None:
    """Drop these events.

    Each by its number, and not all up to the last: on PostgreSQL an event that was begun earlier may be
    committed later, and would go unseen.
    """
    with store.statement() as session:
        for start in range(0, len(numbers), CHUNK):
            session.execute(delete(Event).where(Event.id.in_(numbers[start : start + CHUNK])))
