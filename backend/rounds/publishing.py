"""Step 5: the queue becomes the order in which Label Studio serves. Every call can be repeated.

Until the project's model_version changes, the old queue is in force; from then on the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

from backend.errors import LabelStudioRefused, UnknownTasks
from backend.labelstudio.predictions import check_rows, queue_row
from backend.labelstudio.project_setup import show_predictions
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from backend.labelstudio.session import in_chunks
from backend.rounds.reasons import sentence
from backend.rounds.selection import Place
from backend.rounds.services import Services
from backend.store import projects, rounds, tasks
from backend.store.rounds import RoundName
from backend.store.tables import Round

log = logging.getLogger(__name__)

Checkpoint = Callable[[str], None]
LIVE_SUFFIX = "-live"
# Tasks a call that deletes rows: a tenth of a second of Label Studio's, on a quiet machine.
TASKS_A_PIECE = 20


def publish(
    services: Services,
    opened: Round,
    schema: TaskSchema,
    places: Sequence[Place],
    answers: Mapping[int, tuple[list[str], float]],
    checkpoint: Checkpoint,
) -> list[Place]:
    """Send the queue, put it in force, clear away the one before; returns the queue as published.

    Parameters
    ----------
    answers
        Task id to the head's answer and its probability; empty unless the project pre-fills answers.
    checkpoint
        Called at each named point; raises when this worker has lost the round.

    Raises
    ------
    PublishRefused
        Label Studio stored fewer rows than were sent. The old queue is still in force.
    UnknownTasks
        Every task of the queue is gone.
    """
    places = _import(services, opened, schema, places, answers)
    checkpoint("imported")
    _show_reasons(services, opened.project_id, places, pairing=schema.kind == "pairing")
    if answers:
        show_predictions(services.label_studio, opened.project_id)
    checkpoint("explained")
    services.label_studio.set_model_version(opened.project_id, opened.version)
    checkpoint("switched")
    rounds.put_in_force(services.store, opened)
    checkpoint("in force")
    clear_away(services, opened.project_id, services.label_studio.model_versions(opened.project_id))
    return list(places)


def clear_away(services: Services, project_id: int, versions: Collection[str]) -> None:
    """Take back the reasons of tasks that left the queue, delete our versions that are not in force, and forget what
    of their queues is of no use any more.

    Only versions that a round of this store published are deleted. Rows made on demand are left to
    `trim_live_rows`: there may be thousands, and deleting them blocks.

    Parameters
    ----------
    versions
        All versions that Label Studio holds.
    """
    project = projects.get(services.store, project_id)
    in_force = rounds.in_force(services.store, project)
    queued = {entry.task_id for entry in rounds.queue(services.store, in_force.id)} if in_force else set()
    stale = tasks.with_reason(services.store, project_id) - queued
    if stale:
        services.label_studio.write_field(project_id, sorted(stale), REASON_KEY, "")
        tasks.set_reason(services.store, project_id, stale, "")
    old = [r for r in rounds.names(services.store, project_id) if r.version not in (project.version, "")]
    left_over = [r for r in old if r.version in versions]
    if set(versions) <= {project.version, *(r.version for r in old), *live_versions(services, project_id)}:
        _delete_in_pieces(services, project_id, left_over, queued)
    for round_ in left_over:
        services.label_studio.delete_model_version(project_id, round_.version)
    if in_force is not None:
        rounds.forget_superseded(services.store, in_force)


def _delete_in_pieces(
    services: Services, project_id: int, left_over: Iterable[RoundName], queued: Container[int]
) -> None:
    """Delete the rows of tasks that are in no queue any more, a few tasks a call.

    Label Studio deletes a version in one transaction, some milliseconds a row. On SQLite nobody else can write until
    that ends, and an answer that waits too long is refused. Only in projects where all rows are ours: the call takes
    every row of a task.
    """
    stale = {entry.task_id for r in left_over for entry in rounds.queue(services.store, r.id)}
    for piece in in_chunks(sorted(task_id for task_id in stale if task_id not in queued), TASKS_A_PIECE):
        try:
            services.label_studio.delete_predictions_of(project_id, piece)
        except LabelStudioRefused as refused:
            # All of these tasks may be gone. Whatever is left goes with its version.
            log.info("project %s: %s", project_id, refused)


def trim_live_rows(services: Services, project_id: int, most: int = 50) -> int:
    """Delete some of the rows that old versions answered on demand, in short calls; tells how many."""
    project = projects.get(services.store, project_id)
    ours = live_versions(services, project_id)
    stored = set(services.label_studio.model_versions(project_id))
    deleted = 0
    for version in sorted(ours & stored - {live_version(project.version)}):
        if deleted < most:
            for prediction in services.label_studio.stored_predictions(project_id, version, most - deleted):
                deleted += services.label_studio.delete_prediction(prediction.id)
    return deleted


def live_versions(services: Services, project_id: int) -> set[str]:
    """Every version under which this store has answered on demand."""
    return {live_version(r.version) for r in rounds.names(services.store, project_id)} | {live_version("")}


def live_version(version: str) -> str:
    """The version of answers made on demand: never published, so they never enter a queue."""
    return f"{version.split('-')[0] or 'v0'}{LIVE_SUFFIX}"


def _import(
    services: Services,
    opened: Round,
    schema: TaskSchema,
    places: Sequence[Place],
    answers: Mapping[int, tuple[list[str], float]],
) -> Sequence[Place]:
    label_config = projects.get(services.store, opened.project_id).label_config
    while True:
        rounds.set_queue(
            services.store,
            opened.id,
            [
                {
                    "project_id": opened.project_id,
                    "task_id": place.task_id,
                    "role": place.role,
                    "reason": place.reason,
                    "figures": place.figures,
                }
                for place in places
            ],
        )
        rows = [
            queue_row(
                place.task_id, rank, len(places), opened.version, schema, *answers.get(place.task_id, (None, None))
            )
            for rank, place in enumerate(places)
        ]
        check_rows(label_config, rows)
        try:
            services.label_studio.import_predictions(opened.project_id, rows)
        except UnknownTasks as error:
            # Deleted while the round was choosing; its webhook may come later or never.
            log.warning("project %s: %s", opened.project_id, error)
            tasks.drop(services.store, opened.project_id, error.task_ids)
            places = [place for place in places if place.task_id not in error.task_ids]
            if places:
                continue
            raise
        return places


def _show_reasons(services: Services, project_id: int, places: Sequence[Place], *, pairing: bool) -> None:
    """Write the reason sentences, one call for each sentence in use."""
    for code in sorted({place.reason for place in places}):
        ids = [place.task_id for place in places if place.reason == code]
        # Noted first: a crash in between leaves a reason that the next round knows it has to take back.
        tasks.set_reason(services.store, project_id, ids, code)
        services.label_studio.write_field(project_id, ids, REASON_KEY, sentence(code, pairing=pairing))
