"""Single answers of tasks that several annotators answered, and the further opinions that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select, update

from backend.store.database import Store
from backend.store.tables import AnswerRow, Task
from backend.store.tasks import CHUNK, held_answers


def of_several(store: Store, project_id: int) -> dict[int, list[dict[str, Any]]]:
    """Task -> all its answers, of the tasks that at least two annotators answered."""
    shared = (
        select(AnswerRow.task_id)
        .where(AnswerRow.project_id == project_id, ~AnswerRow.was_cancelled, AnswerRow.has_choices)
        .group_by(AnswerRow.task_id)
        .having(func.count() > 1)
    )
    with store.reading() as session:
        return held_answers(session, project_id, shared)


def relabel(
    store: Store,
    project_id: int,
    decided: Mapping[int, tuple[str, list[str]]],
    read: Mapping[int, Sequence[Mapping[str, Any]]],
) -> int:
    """Note (kind, label) of tasks; tells how many are labelled differently now.

    Parameters
    ----------
    read
        The answers by which each was decided. A task that has others by now keeps its label: who noted those knew
        better.
    """
    changed = 0
    pending = sorted(decided)
    for start in range(0, len(pending), CHUNK):
        with store.writing(project_id) as session:
            mine = (Task.project_id == project_id, Task.task_id.in_(pending[start : start + CHUNK]), ~Task.deleted)
            rows = session.execute(select(Task.task_id, Task.label_kind, Task.label).where(*mine)).all()
            differing = [task_id for task_id, *label in rows if tuple(label) != decided[task_id]]
            held = held_answers(session, project_id, differing)
            changes = [
                {"project_id": project_id, "task_id": task_id, "label_kind": kind, "label": label}
                for task_id, (kind, label) in ((task_id, decided[task_id]) for task_id in differing)
                if held.get(task_id) == read[task_id]
            ]
            if changes:
                session.execute(update(Task), changes)
            changed += len(changes)
    return changed


class Undecided(NamedTuple):
    """A task whose answers differ, without one that prevails.

    annotators: how many answered; asked: the overlap Label Studio was asked for, 0 if nobody asked; before: what it
    was before we raised it, 0 if we did not.
    """

    annotators: int
    asked: int
    before: int


def undecided(store: Store, project_id: int) -> dict[int, Undecided]:
    """Undecided tasks by their number."""
    with store.reading() as session:
        rows = session.execute(
            select(
                Task.task_id, func.count(AnswerRow.annotator_id.distinct()), Task.overlap_asked, Task.overlap_before
            )
            .join(AnswerRow, (AnswerRow.project_id == Task.project_id) & (AnswerRow.task_id == Task.task_id))
            .where(Task.project_id == project_id, ~Task.deleted, Task.label_kind == "tie", ~AnswerRow.was_cancelled)
            .group_by(Task.task_id, Task.overlap_asked, Task.overlap_before)
            .order_by(Task.task_id)
        ).all()
    return {int(task_id): Undecided(*rest) for task_id, *rest in rows}


def raised_overlaps(store: Store, project_id: int) -> dict[int, tuple[int, int]]:
    """Task -> (overlap that was asked for, overlap before that), of those we raised."""
    with store.reading() as session:
        rows = session.execute(
            select(Task.task_id, Task.overlap_asked, Task.overlap_before).where(
                Task.project_id == project_id, ~Task.deleted, Task.overlap_before > 0
            )
        ).all()
    return {task_id: (asked, before) for task_id, asked, before in rows}


def note_overlap(
    store: Store, project_id: int, task_ids: Iterable[int], *, asked: int | None = None, before: int | None = None
) -> None:
    """Note what Label Studio was asked for, or what it had before; None leaves it as it is."""
    given = {"overlap_asked": asked, "overlap_before": before}
    values = {name: value for name, value in given.items() if value is not None}
    pending = list(task_ids)
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            chunk = pending[start : start + CHUNK]
            session.execute(update(Task).where(Task.project_id == project_id, Task.task_id.in_(chunk)).values(values))
