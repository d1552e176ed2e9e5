"""Between sync and fit: what tasks with several answers teach, by the label model of the project."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from backend.labelstudio.annotations import Answer, parse_time
from backend.labelstudio.schema import TaskSchema
from backend.rounds.label_models import check_label_model, resolve_labels
from backend.rounds.options import ProjectOptions
from backend.rounds.services import Services
from backend.store import answers, notes
from backend.store.database import Store
from backend.store.tables import Project

log = logging.getLogger(__name__)


def decide_labels(services: Services, project: Project, schema: TaskSchema, options: ProjectOptions) -> int:
    """Label the tasks that several annotators answered; tells how many are labelled differently now.

    Between rounds new answers count by the majority, which needs no other task; each round decides all of them again.
    By the majority that is done once after each reading of all answers, which a changed label config brings along.

    Parameters
    ----------
    project
        As schema and options were read from it.

    Raises
    ------
    LabelModelUnsuited
        The model's package is missing on this machine, or the label config changed to one the model does not suit.
    """
    check_label_model(options.label_model, schema)
    store, note = services.store, f"labels {project.id}"
    by = {"label_model": options.label_model, "read_at": project.reconciled_at}
    decided_by = notes.read(store, note)
    if by == decided_by and options.label_model == "majority":
        return 0
    if by != decided_by:
        # A worker that dies on the way has decided nothing.
        notes.write(store, note, {})
    read = answers.of_several(store, project.id)
    resolved = resolve_labels(_by_task(read), options.label_model, multi_label=schema.multi_label)
    decided = {task_id: (r.kind, list(r.choices or ())) for task_id, r in resolved.items()}
    changed = answers.relabel(store, project.id, decided, read)
    if by != decided_by:
        notes.write(store, note, by)
    if changed:
        log.info("project %s: %d labels changed, decided by %s", project.id, changed, options.label_model)
    return changed


def answers_of_several(store: Store, project_id: int) -> dict[int, list[Answer]]:
    """Task -> all its answers, of the tasks that at least two annotators answered."""
    return _by_task(answers.of_several(store, project_id))


def _by_task(read: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[int, list[Answer]]:
    return {task_id: [_answer(**row) for row in rows] for task_id, rows in read.items()}


def _answer(
    *, annotator_id: int, updated_at: str, choices: Sequence[str], has_choices: bool, problem: str, **same: Any
) -> Answer:
    return Answer(
        annotator_id=annotator_id or None,
        updated_at=parse_time(updated_at),
        choices=tuple(choices) if has_choices else None,
        problem=problem or None,
        **same,
    )
