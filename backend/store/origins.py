"""Which Label Studio a project was attached in: a project is its number, and every Label Studio has a project 1."""

from __future__ import annotations

from typing import NamedTuple

from backend.store import notes
from backend.store.database import Store


class Origin(NamedTuple):
    """Address of Label Studio, and when it made the project: that stays the same where Label Studio moves."""

    address: str
    created_at: str


def find(store: Store, project_id: int) -> Origin | None:
    """Where the project belongs; None before the first look."""
    value = notes.read(store, _name(project_id))
    return Origin(**value) if value else None


def note(store: Store, project_id: int, origin: Origin) -> None:
    """From now on it belongs there."""
    notes.write(store, _name(project_id), origin._asdict())


def _name(project_id: int) -> str:
    return f"origin {project_id}"
