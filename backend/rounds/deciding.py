"""Between sync and fit: what tasks with several answers teach, by the label model of the project."""

from __future__ import annotations

import logging
from collections import defaultdict

from backend.labelstudio.annotations import Answer, parse_time
from backend.labelstudio.schema import TaskSchema
from backend.rounds.label_models import check_label_model, resolve_labels
from backend.rounds.options import ProjectOptions
from backend.rounds.services import Services
from backend.store import answers
from backend.store.database import Store

log = logging.getLogger(__name__)


def decide_labels(services: Services, project_id: int, schema: TaskSchema, options: ProjectOptions) -> int:
    """Label the tasks that several annotators answered; tells how many are labelled differently now.

    Between rounds new answers count by the majority, which needs no other task; each round decides all of them again.

    Raises
    ------
    LabelModelUnsuited
        The model's package is missing on this machine, or the label config changed to one the model does not suit.
    """
    check_label_model(options.label_model, schema)
    known = answers_of_several(services.store, project_id)
    resolved = resolve_labels(known, options.label_model, multi_label=schema.multi_label)
    decided = {task_id: (r.kind, list(r.choices or ())) for task_id, r in resolved.items()}
    changed = answers.relabel(services.store, project_id, decided) if decided else 0
    if changed:
        log.info("project %s: %d labels changed, decided by %s", project_id, changed, options.label_model)
    return changed


def answers_of_several(store: Store, project_id: int) -> dict[int, list[Answer]]:
    """Task -> all its answers, of the tasks that at least two annotators answered."""
    found: dict[int, list[Answer]] = defaultdict(list)
    for row in answers.of_several(store, project_id):
        found[row.task_id].append(
            Answer(
                annotation_id=row.annotation_id,
                task_id=row.task_id,
                annotator_id=row.annotator_id or None,
                updated_at=parse_time(row.updated_at),
                choices=tuple(row.choices) if row.has_choices else None,
                was_cancelled=row.was_cancelled,
                ground_truth=row.ground_truth,
                problem=row.problem or None,
            )
        )
    return dict(found)
