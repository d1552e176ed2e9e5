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
    with store.statement() as session:
        store.upsert(session, Note, [{"name": name, "value": value}], ["value"])


def events_secret(store: Store) -> str:
    """The secret that our webhook carries; made once a store."""
    found = read(store, "events_secret")
    if not found:
        made = {"name": "events_secret", "value": {"secret": secrets.token_urlsafe(24)}}
        with store.statement() as session:
            store.upsert(session, Note, [made], [])
        # Another process may have been first: what is there counts.
        found = read(store, "events_secret")
    return str(found["secret"])
