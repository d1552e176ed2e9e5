"""Tasks and their answers: what is in the pool, what is labelled, what waits to be embedded."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Select, String, and_, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from backend.store import encoder_queue
from backend.store.database import Store
from backend.store.engines import without_nul
from backend.store.tables import TASK_UNREADABLE, AnswerRow, PairQueryRow, Task, Vector

CHUNK = 500


@dataclass(frozen=True)
class Inputs:
    """What is embedded of a task; an empty string where the task lacks the modality."""

    task_id: int
    image: str
    text: str


@dataclass(frozen=True)
class Labelling:
    """All answers of a task, and what they come to."""

    task_id: int
    kind: str
    label: list[str] = field(default_factory=list)
    answers: Sequence[Mapping[str, Any]] = ()


class VectorRow(NamedTuple):
    """An embedded task: what it is labelled as and where its vectors lie; row -1: the modality is absent."""

    task_id: int
    label_kind: str
    label: list[str]
    image_row: int
    text_row: int


@dataclass(frozen=True)
class Counts:
    """How many tasks of a project are in which state.

    pool: embedded and answered by nobody; labels: embedded and labelled, what a round can learn from; by_label: tasks
    without vectors too.
    """

    live: int
    embedded: int
    pool: int
    labels: int
    by_label: Mapping[str, int]


def remember(store: Store, project_id: int, inputs: Iterable[Inputs], *, urgent: bool = False) -> int:
    """Note tasks and their inputs; a changed input is embedded again.

    Parameters
    ----------
    urgent
        Embed them before all others: somebody is waiting.

    Returns
    -------
    int
        How many were new, came back or changed.
    """
    # As they will be read back: a difference would be taken for a change at every look.
    pending = [Inputs(item.task_id, without_nul(item.image), without_nul(item.text)) for item in inputs]
    changed = 0
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            chunk = {item.task_id: item for item in pending[start : start + CHUNK]}
            known = {task.task_id: task for task in session.scalars(_of(project_id, chunk))}
            for task_id, item in chunk.items():
                task = known.get(task_id)
                order = -1.0 if urgent else random.random()
                if task is None:
                    session.add(
                        Task(
                            project_id=project_id,
                            task_id=task_id,
                            image=item.image,
                            text=item.text,
                            embed_order=order,
                        )
                    )
                    changed += 1
                    continue
                changed += task.deleted
                task.deleted = False
                if urgent:
                    task.embed_order = order
                if (task.image, task.text) != (item.image, item.text):
                    task.image, task.text, task.embedded_with = item.image, item.text, ""
                    task.embed_order = order
                    changed += 1
    return changed


def label(store: Store, project_id: int, labellings: Iterable[Labelling]) -> int:
    """Replace the answers of these tasks; tells how many tasks are labelled differently now.

    A labelled task whose answers are those we had keeps its label: a round may have decided it by more than them. A
    skipped task that an admin put back leaves the pool with the next answer or skip.
    """
    pending = list(labellings)
    changed = 0
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            chunk = {item.task_id: item for item in pending[start : start + CHUNK]}
            labelled = {task.task_id: task for task in session.scalars(_of(project_id, chunk))}
            held = held_answers(session, project_id, list(chunk))
            known = {
                n for n, task in labelled.items() if task.label_kind != "none" and held.get(n) == _rows(chunk[n])
            }
            chunk = {task_id: item for task_id, item in chunk.items() if task_id not in known}
            session.execute(delete(AnswerRow).where(AnswerRow.project_id == project_id, AnswerRow.task_id.in_(chunk)))
            rows = [{**answer, "project_id": project_id} for item in chunk.values() for answer in item.answers]
            store.upsert(session, AnswerRow, rows, [c.name for c in AnswerRow.__table__.columns])
            for task_id, item in chunk.items():
                task = labelled.get(task_id)
                if task is None:
                    continue
                again = task.restored and any(row not in held.get(task_id, []) for row in _rows(item))
                if again or (task.label_kind, task.label) != (item.kind, item.label):
                    task.label_kind, task.label, task.restored = item.kind, list(item.label), False
                    changed += 1
    return changed


def held_answers(
    session: Session, project_id: int, task_ids: Sequence[int] | Select[Any]
) -> dict[int, list[dict[str, Any]]]:
    """Task -> the answers that are stored of it, in the order of their ids; the tasks as a list or a query."""
    held: dict[int, list[dict[str, Any]]] = defaultdict(list)
    columns = [column for column in AnswerRow.__table__.columns if column.name != "project_id"]
    chosen = select(*columns).where(AnswerRow.project_id == project_id, AnswerRow.task_id.in_(task_ids))
    for row in session.execute(chosen.order_by(AnswerRow.task_id, AnswerRow.annotation_id)).mappings():
        held[row["task_id"]].append(dict(row))
    return held


def _rows(item: Labelling) -> list[dict[str, Any]]:
    return sorted(map(dict, item.answers), key=lambda answer: answer["annotation_id"])


def with_answers(store: Store, project_id: int) -> set[int]:
    """Tasks that have at least one answer."""
    with store.reading() as session:
        return set(session.scalars(select(AnswerRow.task_id).where(AnswerRow.project_id == project_id).distinct()))


def drop(store: Store, project_id: int, task_ids: Iterable[int]) -> int:
    """Tasks that are gone from Label Studio: out of the pool and out of the training set."""
    pending = list(task_ids)
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            chunk = pending[start : start + CHUNK]
            session.execute(
                update(Task)
                .where(Task.project_id == project_id, Task.task_id.in_(chunk))
                .values(deleted=True, label_kind="none", label=[], reason="")
            )
            session.execute(delete(AnswerRow).where(AnswerRow.project_id == project_id, AnswerRow.task_id.in_(chunk)))
    return len(pending)


def live_ids(store: Store, project_id: int) -> set[int]:
    """Tasks that exist in Label Studio as far as we know."""
    with store.reading() as session:
        return set(session.scalars(select(Task.task_id).where(Task.project_id == project_id, ~Task.deleted)))


def counts(store: Store, project_id: int, encoder_id: str) -> Counts:
    """How many tasks are in which state."""
    states = (
        select(Task.label_kind, Task.embedded_with == encoder_id, in_pool(), func.count())
        .where(Task.project_id == project_id, ~Task.deleted)
        .group_by(Task.label_kind, Task.embedded_with, Task.restored)
    )
    live: dict[str, int] = defaultdict(int)
    embedded: dict[str, int] = defaultdict(int)
    pool = 0
    with store.reading() as session:
        for kind, has_vectors, waits, count in session.execute(states):
            live[kind] += count
            embedded[kind] += count * has_vectors
            pool += count * (has_vectors and waits)
    return Counts(sum(live.values()), sum(embedded.values()), pool, labels=embedded["label"], by_label=dict(live))


def count_answers(store: Store, project_id: int) -> tuple[int, int]:
    """(annotations, skips) that are stored."""
    kinds = select(AnswerRow.was_cancelled, func.count()).where(AnswerRow.project_id == project_id)
    with store.reading() as session:
        found: dict[bool, int] = dict(session.execute(kinds.group_by(AnswerRow.was_cancelled)).all())
    return found.get(False, 0), found.get(True, 0)


def count_unreadable(store: Store, project_id: int) -> int:
    """How many tasks have an image or a text that could not be read."""
    with store.reading() as session:
        return session.scalar(select(func.count()).where(*_unreadable(project_id))) or 0


def _unreadable(project_id: int) -> tuple[Any, ...]:
    return Task.project_id == project_id, ~Task.deleted, TASK_UNREADABLE


def to_embed(store: Store, project_id: int, encoder_id: str, limit: int) -> list[Task]:
    """The next tasks for the encoder: urgent ones first, then in the order of their uniform draw."""
    return encoder_queue.next_rows(store, Task, project_id, encoder_id, limit)


def deferred(store: Store, project_id: int, limit: int) -> list[Task]:
    """A random few of the tasks whose image could not be had for now."""
    return encoder_queue.deferred_rows(store, Task, project_id, limit)


def waiting_for_images(store: Store, project_id: int, encoder_id: str) -> int:
    """How many tasks have no vector because their image could not be had for now, and nothing else to go by."""
    return encoder_queue.count_deferred(store, Task, project_id, without_vectors_of=encoder_id)


def to_try_again(store: Store, project_id: int) -> int:
    """How many tasks wait for their image, with or without a vector of their text."""
    return encoder_queue.count_deferred(store, Task, project_id)


def embedded(store: Store, project_id: int, rows: Iterable[dict[str, Any]]) -> None:
    """Note the content hashes or problems of tasks that went through the encoder.

    A task whose inputs changed meanwhile keeps waiting; what was tried again is through, readable or not.
    """
    with store.writing(project_id) as session:
        for row in rows:
            session.execute(
                update(Task)
                .where(
                    Task.project_id == project_id,
                    Task.task_id == row["task_id"],
                    Task.image == row["image"],
                    Task.text == row["text"],
                )
                .values(embed_again=False, **{k: v for k, v in row.items() if k not in ("task_id", "image", "text")})
            )


def retry_problems(store: Store, project_id: int) -> int:
    """Send every task with an unreadable modality through the encoder again; tells how many."""
    return encoder_queue.try_again(store, Task, project_id)


def restore_skipped(store: Store, project_id: int, task_ids: Iterable[int] | None = None) -> int:
    """Put skipped tasks back into the pool, these or all of the project; the questions of a pairing project too."""
    with store.writing(project_id) as session:
        where = [Task.project_id == project_id, Task.label_kind == "skipped", ~Task.deleted]
        if task_ids is not None:
            where.append(Task.task_id.in_(list(task_ids)))
        found = session.execute(update(Task).where(*where).values(restored=True))
        asked = (PairQueryRow.project_id == project_id, PairQueryRow.answer == "skipped")
        restored = PairQueryRow.task_id.in_(select(Task.task_id).where(*where))
        session.execute(update(PairQueryRow).where(*asked, restored).values(answer="open"))
        return int(found.rowcount)  # type: ignore[attr-defined]


def restored(store: Store, project_id: int) -> set[int]:
    """Tasks that were put back after a skip and were not answered or skipped again since."""
    with store.reading() as session:
        return set(session.scalars(select(Task.task_id).where(Task.project_id == project_id, Task.restored)))


def in_pool() -> Any:
    """SQL condition: nobody answered the task, or the admin put it back after a skip."""
    return or_(Task.label_kind == "none", and_(Task.label_kind == "skipped", Task.restored))


def vector_rows(
    store: Store, project_id: int, encoder_id: str, task_ids: Sequence[int] | None = None
) -> list[VectorRow]:
    """Embedded tasks in the order of their ids: these, or (default) all labelled tasks and the pool."""
    image, text = aliased(Vector), aliased(Vector)

    def joined(modality: str, vector: Any, content: Any) -> Any:
        return and_(vector.encoder_id == encoder_id, vector.modality == modality, vector.content_hash == content)

    query = (
        # The label as text: most tasks have none, and decoding JSON for all of them is half the time of this query.
        select(
            Task.task_id,
            Task.label_kind,
            cast(Task.label, String),
            func.coalesce(image.row, -1),
            func.coalesce(text.row, -1),
        )
        .outerjoin(image, joined("image", image, Task.image_hash))
        .outerjoin(text, joined("text", text, Task.text_hash))
        .where(Task.project_id == project_id, ~Task.deleted, Task.embedded_with == encoder_id)
        .order_by(Task.task_id)
    )
    with store.reading() as session:
        if task_ids is None:
            rows = session.execute(query.where(or_(Task.label_kind == "label", in_pool()))).all()
            return [_vector_row(*row) for row in rows]
        found: list[VectorRow] = []
        for start in range(0, len(task_ids), CHUNK):
            chunk = query.where(Task.task_id.in_(task_ids[start : start + CHUNK]))
            found.extend(_vector_row(*row) for row in session.execute(chunk).all())
        return found


def _vector_row(task_id: int, kind: str, label: str, image_row: int, text_row: int) -> VectorRow:
    return VectorRow(task_id, kind, json.loads(label) if kind == "label" else [], image_row, text_row)


def inputs_of(store: Store, project_id: int, task_ids: Sequence[int]) -> list[Inputs]:
    """What is embedded of these tasks, in their order; those that are unknown are left out."""
    found: dict[int, Inputs] = {}
    with store.reading() as session:
        for start in range(0, len(task_ids), CHUNK):
            for task in session.scalars(_of(project_id, task_ids[start : start + CHUNK])):
                found[task.task_id] = Inputs(task.task_id, task.image, task.text)
    return [found[task_id] for task_id in task_ids if task_id in found]


def with_reason(store: Store, project_id: int) -> set[int]:
    """Tasks that may show a reason in Label Studio."""
    with store.reading() as session:
        return set(session.scalars(select(Task.task_id).where(Task.project_id == project_id, Task.reason != "")))


def set_reason(store: Store, project_id: int, task_ids: Iterable[int], reason: str) -> None:
    """Note the reason that is about to be shown (before it is written) or was cleared (after)."""
    pending = list(task_ids)
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            chunk = pending[start : start + CHUNK]
            session.execute(
                update(Task).where(Task.project_id == project_id, Task.task_id.in_(chunk)).values(reason=reason)
            )


def _of(project_id: int, task_ids: Iterable[int]) -> Any:
    return select(Task).where(Task.project_id == project_id, Task.task_id.in_(list(task_ids)))


def unsettled(store: Store, project_id: int) -> list[tuple[int, str]]:
    """(task, "tie" or "unreadable"): answered, but with nothing to learn until somebody settles it."""
    with store.reading() as session:
        return list(
            session.execute(
                select(Task.task_id, Task.label_kind)
                .where(Task.project_id == project_id, ~Task.deleted, Task.label_kind.in_(("tie", "unreadable")))
                .order_by(Task.task_id)
            ).all()
        )


def problems(store: Store, project_id: int) -> list[tuple[int, str, str]]:
    """(task, modality, why) of every image and text that could not be read."""
    with store.reading() as session:
        of = select(Task.task_id, Task.image_problem, Task.text_problem).where(*_unreadable(project_id))
        # Sorted here: SQLite would read all tasks in that order.
        rows = sorted(session.execute(of).all())
    return [
        (task_id, modality, problem)
        for task_id, image, text in rows
        for modality, problem in (("image", image), ("text", text))
        if problem
    ]
