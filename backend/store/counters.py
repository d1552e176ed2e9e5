"""Sums that all processes add to: what has happened since the store was made."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import select

from backend.store.database import Store
from backend.store.tables import CounterRow

Key = tuple[str, tuple[str, ...]]
"""Name and the values of its labels."""


def add(store: Store, amounts: Mapping[Key, float]) -> None:
    """Add to the sums, in one transaction; sorted, so that two processes never wait for each other in a ring."""
    with store.statement() as session:
        for name, labels in sorted(amounts):
            row = {"name": name, "labels": json.dumps(labels), "value": amounts[name, labels]}
            statement = store.insert(CounterRow).values(row)
            total = CounterRow.value + statement.excluded["value"]
            session.execute(statement.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": total}))


def every(store: Store) -> dict[Key, float]:
    """All sums."""
    with store.reading() as session:
        rows = session.execute(select(CounterRow.name, CounterRow.labels, CounterRow.value)).all()
    return {(name, tuple(json.loads(labels))): value for name, labels, value in rows}
