"""What waits for the encoder, of tasks and of catalogues alike: new rows, those to be tried again, deferred ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from backend.store.database import Store
from backend.store.tables import ITEM_UNREADABLE, TASK_UNREADABLE, CatalogueItem, Task

DEFERRED = 1.0
"""From this `embed_order` on a task or an item is only tried again after a pause: its host did not answer."""

Row = TypeVar("Row", Task, CatalogueItem)


def next_rows(store: Store, table: type[Row], project_id: int, encoder_id: str, limit: int) -> list[Row]:
    """The next rows to encode in the order of their draw: those without vectors; with none left, those tried again.

    Never both in one answer: what is new would wait for addresses that were dead before.
    """
    mine: list[Any] = _present(table, project_id)
    now = table.embed_order < DEFERRED
    with store.reading() as session:
        others = [encoder for encoder in _encoders(session, table, mine) if encoder != encoder_id]
        found = _of_encoders(session, table, others, [*mine, now], limit)
        if found:
            return found
        again = select(table).where(*mine, table.embed_again, _unreadable(table), now)
        return list(session.scalars(again.order_by(table.embed_order).limit(limit)))


def deferred_rows(store: Store, table: type[Row], project_id: int, limit: int) -> list[Row]:
    """A random few of the deferred ones, with or without vectors."""
    mine: list[Any] = _present(table, project_id)
    with store.reading() as session:
        everything = _encoders(session, table, mine)
        return _of_encoders(session, table, everything, [*mine, table.embed_order >= DEFERRED], limit)


def count_deferred(
    store: Store, table: type[Row], project_id: int, *where: Any, without_vectors_of: str | None = None
) -> int:
    """How many are deferred, all of them or those that have no vectors of an encoder."""
    mine: list[Any] = _present(table, project_id)
    late = select(func.count()).select_from(table).where(*mine, *where, table.embed_order >= DEFERRED)
    with store.reading() as session:
        of = [encoder for encoder in _encoders(session, table, mine) if encoder != without_vectors_of]
        return sum(session.scalar(late.where(table.embedded_with == encoder)) or 0 for encoder in of)


def try_again(store: Store, table: type[Row], project_id: int) -> int:
    """Have what could not be read encoded once more; it keeps what it has until then. Tells how many."""
    with store.writing(project_id) as session:
        again = update(table).where(*_present(table, project_id), _unreadable(table)).values(embed_again=True)
        return int(session.execute(again).rowcount)  # type: ignore[attr-defined]


def _of_encoders(
    session: Session, table: type[Row], encoders: Iterable[str], where: list[Any], limit: int
) -> list[Row]:
    found: list[Row] = []
    for encoder in encoders:
        query = select(table).where(*where, table.embedded_with == encoder)
        found += session.scalars(query.order_by(table.embed_order).limit(limit))
    return sorted(found, key=lambda row: row.embed_order)[:limit]


def _encoders(session: Session, table: type[Row], mine: list[Any]) -> Iterator[str]:
    """What the rows are embedded with, from value to value of the index: "another than this" would read all of it."""
    lowest = select(func.min(table.embedded_with)).where(*mine)
    found = session.scalar(lowest)
    while found is not None:
        yield found
        found = session.scalar(lowest.where(table.embedded_with > found))


def _present(table: type[Row], project_id: int) -> list[Any]:
    of_project: list[Any] = [table.project_id == project_id]
    return [*of_project, ~Task.deleted] if table is Task else of_project


def _unreadable(table: type[Row]) -> Any:
    return TASK_UNREADABLE if table is Task else ITEM_UNREADABLE
