"""Single values that several processes share."""

from __future__ import annotations

import secrets
from typing import Any

from backend.store.database import Store
from backend.store.tables import Note


def read(store: Store, name: str) -> dict[str, Any]:
    """The value, or an empty dict."""
    with store.reading() as session:
        note = session.get(Note, name)
        return dict(note.value) if note else {}


def write(store: Store, name: str, value: dict[str, Any]) -> None:
    """Set the value."""
    with store.writing() as session:
        store.upsert(session, Note, [{"name": name, "value": value}], ["value"])


def events_secret(store: Store) -> str:
    """The secret that our webhook carries; made once a store."""
    with store.writing() as session:
        note = session.get(Note, "events_secret")
        if note is None:
            note = Note(name="events_secret", value={"secret": secrets.token_urlsafe(24)})
            session.add(note)
        return str(note.value["secret"])
