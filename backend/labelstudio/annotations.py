"""Annotation JSON -> answers, and the answers of several annotators -> one label a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from backend.labelstudio.schema import TaskSchema

ResolutionKind = Literal["label", "tie", "skipped", "unreadable", "none"]


@dataclass(frozen=True)
class Answer:
    """One annotation, read with one schema.

    `choices` is None when there is nothing to learn from: skipped, or unreadable for the reason in `problem`.
    An empty tuple is the answer "none of them" of a multi-label control.
    """

    annotation_id: int
    task_id: int | None
    annotator_id: int | None
    updated_at: datetime
    choices: tuple[str, ...] | None
    was_cancelled: bool
    ground_truth: bool
    problem: str | None = None


@dataclass(frozen=True)
class Resolution:
    """What a task teaches.

    kind : "label" trains; "tie" stays out and is listed; "skipped" when all that was done is skipping;
        "unreadable" when answers exist but none fits the label config; "none" without annotations
    choices : the label (one entry for single-label, sorted for multi-label), only with kind "label"
    from_ground_truth : the label is a ground truth, whatever the annotators said
    """

    kind: ResolutionKind
    choices: tuple[str, ...] | None = None
    from_ground_truth: bool = False


def parse_time(value: Any) -> datetime:
    """Label Studio time stamp -> aware datetime in UTC; the epoch when missing or malformed.

    Time stamps are compared as times and never as text: Label Studio drops the fraction when it is zero.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return datetime.fromtimestamp(0, UTC)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return datetime.fromtimestamp(0, UTC)


def read_answer(schema: TaskSchema, annotation: Mapping[str, Any]) -> Answer:
    """Read an annotation as the API, an export or a webhook gives it.

    Never raises for a strange `result`: what cannot be read is an answer with a `problem`.
    """
    skipped = bool(annotation.get("was_cancelled"))
    choices: tuple[str, ...] | None = None
    problem: str | None = None
    if not skipped:
        choices, problem = _read_choices(schema, annotation.get("result"))
    return Answer(
        annotation_id=int(annotation["id"]),
        task_id=_identifier(annotation.get("task")),
        annotator_id=_identifier(annotation.get("completed_by")),
        updated_at=parse_time(annotation.get("updated_at")),
        choices=choices,
        was_cancelled=skipped,
        ground_truth=bool(annotation.get("ground_truth")),
        problem=problem,
    )


def _identifier(value: Any) -> int | None:
    # Exports with user details give {"id": 1, "email": ...} where the API gives 1.
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_choices(schema: TaskSchema, result: Any) -> tuple[tuple[str, ...] | None, str | None]:
    regions = result if isinstance(result, list) else []
    mine = [r for r in regions if isinstance(r, Mapping) and r.get("from_name") == schema.from_name]
    picked: set[str] = set()
    for region in mine:
        value = region.get("value")
        listed = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(listed, list) or not all(isinstance(choice, str) for choice in listed):
            return None, f"'{schema.from_name}' holds no list of choices"
        picked.update(listed)
    unknown = sorted(picked.difference(schema.choices))
    if unknown:
        place = "in the label config (any more)" if schema.kind == "classification" else "among the task's candidates"
        return None, f"'{schema.from_name}' holds {unknown[0]!r}, which is not {place}"
    if not schema.multi_label and len(picked) != 1:
        found = "no answer" if not picked else f"{len(picked)} answers"
        return None, f"'{schema.from_name}' holds {found}, one is expected"
    return tuple(choice for choice in schema.choices if choice in picked), None


def resolve_label(answers: Iterable[Answer], multi_label: bool) -> Resolution:
    """One label for a task.

    The latest readable ground truth wins. Otherwise each annotator has one vote, their latest annotation that
    is not a skip; annotations without an annotator count one by one. Single-label: the answer with the most
    votes, equal numbers are a tie. Multi-label: a choice is on when more than half of the voters ticked it,
    and exactly half is a tie of the whole task. The result does not depend on the order of `answers`.
    """
    known = list(answers)
    if not known:
        return Resolution("none")
    if all(answer.was_cancelled for answer in known):
        return Resolution("skipped")
    counted = counted_answers(known)
    votes = [answer.choices for answer in counted if answer.choices is not None]
    if not votes:
        return Resolution("unreadable")
    if counted[0].ground_truth:
        return Resolution("label", _normal(votes[0], multi_label), from_ground_truth=True)
    return _majority_of_sets(votes) if multi_label else _majority(votes)


def counted_answers(answers: Iterable[Answer]) -> list[Answer]:
    """The readable answers that decide what a task teaches, oldest first.

    The latest ground truth alone where there is one; otherwise the latest of each annotator that is not a skip.
    """
    done = sorted((a for a in answers if not a.was_cancelled), key=_age)
    truths = [answer for answer in done if answer.ground_truth and answer.choices is not None]
    if truths:
        return truths[-1:]
    return latest_answers(done)


def latest_answers(answers: Iterable[Answer]) -> list[Answer]:
    """What each annotator says of a task, oldest first: the last answer that is not a skip, where it is readable.

    Annotations without an annotator count one by one.
    """
    latest: dict[tuple[str, int], Answer] = {}
    for answer in sorted(answers, key=_age):
        by_annotator = answer.annotator_id is not None
        voter = ("annotator", answer.annotator_id) if by_annotator else ("annotation", answer.annotation_id)
        if not answer.was_cancelled:
            latest[voter] = answer  # type: ignore[index]
    return sorted((answer for answer in latest.values() if answer.choices is not None), key=_age)


def _age(answer: Answer) -> tuple[datetime, int]:
    return answer.updated_at, answer.annotation_id


def _normal(choices: tuple[str, ...], multi_label: bool) -> tuple[str, ...]:
    return tuple(sorted(choices)) if multi_label else choices


def _majority(votes: list[tuple[str, ...]]) -> Resolution:
    counts = Counter(votes).most_common(2)
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        return Resolution("tie")
    return Resolution("label", counts[0][0])


def _majority_of_sets(votes: list[tuple[str, ...]]) -> Resolution:
    counts = Counter(choice for vote in votes for choice in vote)
    if any(2 * count == len(votes) for count in counts.values()):
        return Resolution("tie")
    return Resolution("label", tuple(sorted(c for c, count in counts.items() if 2 * count > len(votes))))
