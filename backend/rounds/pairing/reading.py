"""What Label Studio says of the tasks of a pairing project: which question each is, and what its answers come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backend.errors import PairTaskInvalid
from backend.labelstudio.annotations import parse_time
from backend.labelstudio.pair_answers import PairAnswer, is_query, read_pair_annotations, read_pair_answer
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import CANDIDATES_KEY, TaskSchema
from backend.rounds.pairing.filling import absorb_tasks, short_id
from backend.rounds.services import Services, options_of
from backend.store import catalogue, pair_queries, projects, tasks
from backend.store.catalogue import NewItem

# As many characters of an id as the store holds.
LONGEST_STORED = 128
LEARNT = frozenset({"pick", "none", "written", "unsure"})


def remember_tasks(services: Services, project_id: int, schema: TaskSchema, snapshots: Iterable[TaskSnapshot]) -> int:
    """Note the tasks of questions; tasks without a question to ask become items. Tells how many were new or changed.

    A task of somebody else's that has no field of candidates, such as one from before the label config asked for
    pairs, is left alone: items are deleted as tasks, and nobody's answers may go with them.
    """
    store, seen = services.store, list(snapshots)
    questions = {str(s.data["query_key"]): s.id for s in seen if is_query(s.data)}
    known = pair_queries.by_key(store, project_id, questions)
    # A round that was cut off between the import and its note: here are its tasks.
    pair_queries.asked(store, project_id, {key: questions[key] for key, row in known.items() if row.task_id == 0})
    others = [s for s in seen if not is_query(s.data) and s.data.get(CANDIDATES_KEY) == []]
    gone = {s.id for s in others}
    changed = tasks.remember(store, project_id, [tasks.Inputs(s.id, "", "") for s in seen if s.id not in gone])
    if others:
        stream = options_of(projects.get(store, project_id)).streaming
        changed += absorb_tasks(services, project_id, schema, others, stream=stream)
    return changed


def read_answers(services: Services, project_id: int, schema: TaskSchema, snapshots: Iterable[TaskSnapshot]) -> int:
    """Replace the answers of these tasks; tells how many say something else now."""
    store = services.store
    read = [(s, answer) for s in snapshots if is_query(s.data) and (answer := _answer(schema, s)) is not None]
    changed = tasks.label(store, project_id, [_labelling(schema, s, answer) for s, answer in read])
    _keep_written(services, project_id, [answer for _, answer in read])
    partners = [partner for _, answer in read for partner in answer.partner_ids]
    numbers = catalogue.numbers_of(store, project_id, partners)
    back = tasks.restored(store, project_id) if any(answer.kind == "skipped" for _, answer in read) else set()
    pair_queries.answered(
        store,
        project_id,
        [
            {
                "key": answer.query.key,
                "task_id": s.id,
                "answer": "open" if answer.kind == "skipped" and s.id in back else answer.kind,
                **_partners([numbers[partner] for partner in answer.partner_ids if partner in numbers]),
                "answered_at": _first_answered(s),
            }
            for s, answer in read
        ],
    )
    return changed


def forget_answers(services: Services, project_id: int, task_ids: Sequence[int]) -> int:
    """Tasks that had answers and have none any more; tells how many."""
    changed = tasks.label(services.store, project_id, [tasks.Labelling(task_id, "none") for task_id in task_ids])
    open_again = pair_queries.of_tasks(services.store, project_id, task_ids)
    pair_queries.answered(
        services.store,
        project_id,
        [
            {"key": q.key, "task_id": q.task_id, "answer": "open", **_partners([]), "answered_at": ""}
            for q in open_again
        ],
    )
    _drop_written(services, project_id, {q.key for q in open_again})
    return changed


def drop_tasks(services: Services, project_id: int, task_ids: Iterable[int]) -> int:
    """Tasks that are gone from Label Studio: their questions may be asked anew."""
    gone = set(task_ids)
    keys = {q.key for q in pair_queries.of_tasks(services.store, project_id, gone)}
    pair_queries.reopen(services.store, project_id, gone)
    _drop_written(services, project_id, keys)
    return tasks.drop(services.store, project_id, gone)


def _answer(schema: TaskSchema, snapshot: TaskSnapshot) -> PairAnswer | None:
    try:
        return read_pair_answer(schema, snapshot.data, snapshot.annotations or ())
    except PairTaskInvalid:
        # Somebody changed the data of the task: what it asks is no longer known, so nothing is learnt from it.
        return None


def _labelling(schema: TaskSchema, snapshot: TaskSnapshot, answer: PairAnswer) -> tasks.Labelling:
    rows = [
        {
            "annotation_id": each.annotation_id,
            "task_id": snapshot.id,
            "annotator_id": each.annotator_id or 0,
            "updated_at": each.updated_at.isoformat(),
            "choices": list(each.choices or ()),
            "has_choices": each.choices is not None,
            "was_cancelled": each.was_cancelled,
            "ground_truth": each.ground_truth,
            "problem": each.problem or "",
        }
        for each in read_pair_annotations(schema, answer.query, snapshot.annotations or ())
    ]
    if answer.kind in LEARNT:
        return tasks.Labelling(snapshot.id, "label", list(answer.partner_ids) or [answer.kind], rows)
    return tasks.Labelling(snapshot.id, "none" if answer.kind == "open" else answer.kind, [], rows)


def _partners(numbers: Sequence[int]) -> dict[str, Any]:
    return {"partner": numbers[0] if numbers else 0, "further_partners": list(numbers[1:])}


def _first_answered(snapshot: TaskSnapshot) -> str:
    """When the task was first answered: who came first keeps a contested item, edits notwithstanding."""
    moments = [parse_time(annotation.get("created_at")) for annotation in snapshot.annotations or ()]
    return min(moments).isoformat() if moments else ""


def _keep_written(services: Services, project_id: int, answers: Sequence[PairAnswer]) -> None:
    """A caption that was written is an item of its own; one that is no longer the answer leaves the pool."""
    texts = [
        NewItem(_written_id(a.query.key), "text", a.text, written=a.query.key)
        for a in answers
        if a.kind == "written" and a.text
    ]
    if texts:
        catalogue.add(services.store, project_id, texts)
    _drop_written(services, project_id, {a.query.key for a in answers if a.kind != "written"})


def _drop_written(services: Services, project_id: int, keys: set[str]) -> None:
    numbers = catalogue.numbers_of(services.store, project_id, map(_written_id, keys))
    catalogue.set_state(services.store, project_id, numbers.values(), "dropped")


def _written_id(key: str) -> str:
    return short_id("written", key, LONGEST_STORED)
