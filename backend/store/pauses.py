"""Pauses that grow with each failure in a row. In the store, so that every worker keeps to them and status tells."""

from __future__ import annotations

from typing import Literal, NamedTuple

from backend.store import notes
from backend.store.database import Store

Kind = Literal["encoder", "media"]
"""What is paused: all embedding of a project, or trying again what its tasks' hosts did not answer."""

# Twice as long after each failure; 2 to the power of a thousand failures is no number any more.
MOST_DOUBLINGS = 10


class Pause(NamedTuple):
    """failures: in a row; until: seconds since the epoch; why: of the last failure, in words."""

    failures: int
    until: float
    why: str


def seconds(failures: int, longest: float) -> float:
    """How long a pause is after so many failures in a row: two seconds, then twice as long each time."""
    return min(longest, 2.0 ** min(failures, MOST_DOUBLINGS))


def find(store: Store, kind: Kind, project_id: int) -> Pause | None:
    """The pause, over or not; None where the last try went through."""
    value = notes.read(store, _name(kind, project_id))
    return Pause(**value) if value else None


def lengthen(store: Store, kind: Kind, project_id: int, why: str, longest: float) -> Pause:
    """Begin a pause of two seconds, or one twice as long as the last."""
    before = find(store, kind, project_id)
    failures = 1 + (before.failures if before else 0)
    pause = Pause(failures, store.clock() + seconds(failures, longest), why)
    notes.write(store, _name(kind, project_id), pause._asdict())
    return pause


def cut_short(store: Store, kind: Kind, project_id: int) -> None:
    """Try again at once."""
    pause = find(store, kind, project_id)
    if pause is not None:
        notes.write(store, _name(kind, project_id), pause._replace(until=0.0)._asdict())


def end(store: Store, kind: Kind, project_id: int) -> None:
    """A try went through."""
    if find(store, kind, project_id) is not None:
        notes.write(store, _name(kind, project_id), {})


def _name(kind: Kind, project_id: int) -> str:
    return f"pause {kind} {project_id}"
