"""Questions for counterparts: chosen, asked, answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select, update

from backend.store.database import Store
from backend.store.tables import PairQueryRow
from backend.store.tasks import CHUNK


def choose(store: Store, project_id: int, queries: Iterable[dict[str, Any]]) -> None:
    """Note what a round is about to ask; a key that is there already is left as it is."""
    with store.writing(project_id) as session:
        store.upsert(session, PairQueryRow, [{**_blank(), **q, "project_id": project_id} for q in queries], [])


def every(store: Store, project_id: int) -> list[PairQueryRow]:
    """All questions of a project, the oldest round first, in the order they were chosen."""
    with store.reading() as session:
        found = session.scalars(select(PairQueryRow).where(PairQueryRow.project_id == project_id))
        # Sorted here: databases differ in how they order text.
        return sorted(found, key=lambda query: (query.round_number, query.key))


def digest(store: Store, project_id: int) -> str:
    """Stands for all answers: another one as soon as one comes, goes or says something else.

    What a round does to questions of its own accord, asking and withdrawing them, leaves it alone.
    """
    said = select(PairQueryRow.key, PairQueryRow.answer, PairQueryRow.partner, PairQueryRow.further_partners)
    mine = (PairQueryRow.project_id == project_id, PairQueryRow.answer.not_in(("open", "withdrawn")))
    with store.reading() as session:
        rows = sorted([*row] for row in session.execute(said.where(*mine)))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def unasked(store: Store, project_id: int) -> bool:
    """Whether a question waits for a task: its candidates could not be shown so far."""
    mine = (PairQueryRow.project_id == project_id, PairQueryRow.answer == "open", PairQueryRow.task_id == 0)
    with store.reading() as session:
        return session.scalar(select(PairQueryRow.key).where(*mine).limit(1)) is not None


def left_open(store: Store, project_id: int, after: int) -> bool:
    """Whether a question of a round with a number above this one waits for an answer."""
    mine = (PairQueryRow.project_id == project_id, PairQueryRow.answer == "open", PairQueryRow.round_number > after)
    with store.reading() as session:
        return session.scalar(select(PairQueryRow.key).where(*mine).limit(1)) is not None


def of_tasks(store: Store, project_id: int, task_ids: Iterable[int]) -> list[PairQueryRow]:
    """The questions that these tasks ask."""
    wanted = sorted(set(task_ids))
    found: list[PairQueryRow] = []
    with store.reading() as session:
        for start in range(0, len(wanted), CHUNK):
            part = PairQueryRow.task_id.in_(wanted[start : start + CHUNK])
            found += session.scalars(select(PairQueryRow).where(PairQueryRow.project_id == project_id, part)).all()
    return found


def asked(store: Store, project_id: int, task_of: Mapping[str, int]) -> None:
    """Note the task of each key."""
    with store.writing(project_id) as session:
        for key, task_id in task_of.items():
            session.execute(update(PairQueryRow).where(_is(project_id, key)).values(task_id=task_id))


def offered(store: Store, project_id: int, candidates: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Note key -> (number, similarity) of the candidates that its task shows: nobody sees the others."""
    with store.writing(project_id) as session:
        for key, shown in candidates.items():
            values = {"candidates": [number for number, _ in shown], "similarities": [s for _, s in shown]}
            session.execute(update(PairQueryRow).where(_is(project_id, key)).values(**values))


def reopen_unshown(store: Store, project_id: int, items: Iterable[int] | None = None) -> None:
    """Let these items, or all, be asked about again whose question could not be shown and so has no task."""
    unshown = (PairQueryRow.project_id == project_id, PairQueryRow.answer == "unreadable", PairQueryRow.task_id == 0)
    wanted = None if items is None else set(items)
    with store.writing(project_id) as session:
        for row in session.scalars(select(PairQueryRow).where(*unshown)):
            if wanted is None or row.item in wanted:
                row.answer = "withdrawn"


def by_key(store: Store, project_id: int, keys: Iterable[str]) -> dict[str, PairQueryRow]:
    """The questions of these keys, as far as they are ours."""
    wanted, found = list(keys), {}
    with store.reading() as session:
        for start in range(0, len(wanted), CHUNK):
            part = PairQueryRow.key.in_(wanted[start : start + CHUNK])
            for row in session.scalars(select(PairQueryRow).where(PairQueryRow.project_id == project_id, part)):
                found[row.key] = row
    return found


def answered(store: Store, project_id: int, answers: Iterable[dict[str, Any]]) -> int:
    """Replace the answers of these keys (key, task_id, answer, partner, further_partners, answered_at);
    tells how many differ now."""
    changed = 0
    with store.writing(project_id) as session:
        for answer in answers:
            row = session.get(PairQueryRow, (project_id, answer["key"]))
            if row is None:
                continue
            said = ("answer", "partner", "further_partners")
            changed += any(getattr(row, name) != answer[name] for name in said)
            for name in ("task_id", *said, "answered_at"):
                setattr(row, name, answer[name])
    return changed


def reopen(store: Store, project_id: int, task_ids: Iterable[int]) -> None:
    """The tasks of these questions are gone from Label Studio, and so are their answers."""
    pending = list(task_ids)
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            session.execute(
                update(PairQueryRow)
                .where(
                    PairQueryRow.project_id == project_id,
                    PairQueryRow.task_id.in_(pending[start : start + CHUNK]),
                )
                .values(answer="deleted", partner=0, further_partners=[])
            )


def _is(project_id: int, key: str) -> Any:
    return (PairQueryRow.project_id == project_id) & (PairQueryRow.key == key)


def _blank() -> dict[str, Any]:
    return {
        "task_id": 0,
        "similarities": [],
        "purpose": "query",
        "why": "",
        "figures": {},
        "answer": "open",
        "partner": 0,
        "further_partners": [],
        "answered_at": "",
    }
