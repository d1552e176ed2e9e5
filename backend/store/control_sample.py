"""What heads said of the tasks they drew as control sample, and how often the answers said the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Delete, delete, exists, select

from backend.store.database import Store
from backend.store.tables import ControlPrediction, Project, Round, Task


@dataclass(frozen=True)
class ControlRound:
    """The control tasks of one round that were answered out of its queue.

    Attributes
    ----------
    number, version : of the round
    labels : its head was fitted on so many
    answers, right : how many have a label, and how many of these are labelled exactly as the head had said
    prefilled : its queue showed annotators the head's answers
    """

    number: int
    version: str
    labels: int
    answers: int
    right: int
    prefilled: bool


def note(store: Store, drawn_by: Round, predicted: Mapping[int, list[str]]) -> None:
    """Note what the head of a round says of its control tasks, in place of what was noted for the round."""
    with store.statement() as session:
        session.execute(delete(ControlPrediction).where(ControlPrediction.round_id == drawn_by.id))
        session.add_all(
            ControlPrediction(
                project_id=drawn_by.project_id, round_id=drawn_by.id, task_id=task_id, predicted=list(answer)
            )
            for task_id, answer in predicted.items()
        )


def forgetting_unanswered(replacing: Round) -> Delete:
    """The statement that forgets what earlier rounds said of tasks that wait still, when this one is put in force.

    From now on a strategy chooses among them. What it chooses is harder than the pool, so answers to such tasks would
    make the head look worse than it is.
    """
    waits = exists().where(
        Task.project_id == ControlPrediction.project_id,
        Task.task_id == ControlPrediction.task_id,
        Task.label_kind.in_(("none", "skipped")),
    )
    return delete(ControlPrediction).where(
        ControlPrediction.project_id == replacing.project_id, ControlPrediction.round_id != replacing.id, waits
    )


def by_round(store: Store, project: Project) -> list[ControlRound]:
    """The rounds with control answers, the earliest first; only those of the label config in force."""
    drawn = (
        select(ControlPrediction.round_id, ControlPrediction.predicted, Task.label)
        .join(
            Task,
            (Task.project_id == ControlPrediction.project_id) & (Task.task_id == ControlPrediction.task_id),
        )
        .where(ControlPrediction.project_id == project.id, Task.label_kind == "label", ~Task.deleted)
    )
    published = (
        select(Round.id, Round.number, Round.version, Round.counts, Round.options)
        .where(
            Round.project_id == project.id,
            Round.status == "published",
            Round.schema_hash == project.schema_hash,
            exists().where(ControlPrediction.project_id == project.id, ControlPrediction.round_id == Round.id),
        )
        .order_by(Round.id)
    )
    answers: Counter[int] = Counter()
    right: Counter[int] = Counter()
    with store.reading() as session:
        for round_id, predicted, label in session.execute(drawn):
            answers[round_id] += 1
            right[round_id] += set(predicted) == set(label)
        return [
            ControlRound(
                number=number,
                version=version,
                labels=int(counts.get("labels", 0)),
                answers=answers[round_id],
                right=right[round_id],
                # Rounds of earlier versions noted what was asked for only.
                prefilled=bool(counts.get("prefilled", options.get("prelabel"))),
            )
            for round_id, number, version, counts, options in session.execute(published)
            if answers[round_id]
        ]
