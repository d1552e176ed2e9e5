"""Step 1 of a round, and the poll between rounds: what changed in Label Studio.

Webhooks only say when to look. What is true is read here, from a mark that overlaps the last reading, and whole
tasks are replaced, so doubled, late or missing hints change nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.errors import LabelConfigUnsupported
from backend.labelstudio.annotations import parse_time, read_answer, resolve_label
from backend.labelstudio.records import ProjectInfo, TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.labelstudio.session import in_chunks
from backend.rounds import origin
from backend.rounds.connecting import form_note
from backend.rounds.options import suited_options
from backend.rounds.pairing import reading as pairing
from backend.rounds.services import Services, options_of
from backend.store import notes, projects, rounds, tasks
from backend.store.tables import Project

log = logging.getLogger(__name__)

# Label Studio stamps a change before it commits it; a reader in between would otherwise never see it.
OVERLAP = timedelta(seconds=10)
# Above this many tasks a full reading takes longer than an annotator should wait for the first queue.
LARGE = 5_000
SAMPLE = 512
# What is read is stored in pieces of so many tasks: their data may hold pictures, and a reading that is cut off keeps
# what it had.
CHUNK = 1_000


@dataclass
class SyncReport:
    """What one look at Label Studio found."""

    tasks: int = 0
    labels: int = 0
    deleted: int = 0
    full: bool = False
    serving: str | None = None


def sync_project(
    services: Services, project_id: int, *, reconcile: bool = False, in_round: bool = False
) -> SyncReport:
    """Bring the store up to date with Label Studio.

    Parameters
    ----------
    reconcile
        Compare all task ids and re-read all answers, as at start and daily.
    in_round
        A round is open, which will take a changed label config into account or be asked for again.

    Raises
    ------
    LabelStudioError, LabelConfigUnsupported, ProjectOfAnother
    """
    project = projects.get(services.store, project_id)
    info = services.label_studio.project(project_id)
    origin.compare(services, info)
    # Label Studio's clock before anything is read: what changes from here on is found by the next look.
    mark = services.label_studio.server_time()
    schema = _schema(services, project, info)
    changed = schema.config_hash != project.schema_hash
    if not project.watermark and info.task_number > LARGE and schema.kind == "classification":
        _read_sample(services, project_id, schema)
    report = SyncReport(full=changed or reconcile or not project.watermark, serving=info.model_version)
    if report.full:
        _read_everything(services, project_id, schema, report)
    else:
        _read_changes(services, project, schema, report)
    _compare_counts(services, project_id, schema, info, report)
    now = services.store.clock()
    # The hash comes last: a reading that was cut off leaves answers of the old label config, and is done again.
    fields: dict[str, Any] = {"watermark": _text(mark), "synced_at": now, "title": info.title, "problem": ""}
    fields["schema_hash"] = schema.config_hash
    if report.full:
        fields["reconciled_at"] = now
    known_before = bool(project.version or project.schema_hash)
    if changed and known_before and not in_round and rounds.is_choosing_or_in_force(services.store, project_id):
        # Before the hash, so that it is never forgotten. A round that is open may have read the old label config.
        projects.request_round(services.store, project_id, "the label config changed", at_once=True)
    projects.finish_sync(services.store, project, fields)
    if report.tasks or report.labels or report.deleted:
        log.info("project %s: sync found %s", project_id, asdict(report))
    return report


def _schema(services: Services, project: Project, info: ProjectInfo) -> TaskSchema:
    try:
        schema = TaskSchema.from_label_config(info.label_config, options_of(project).control)
    except LabelConfigUnsupported as error:
        projects.remember(services.store, project.id, label_config=info.label_config, problem=str(error))
        raise
    if info.label_config != project.label_config:
        projects.remember(services.store, project.id, label_config=info.label_config)
    if schema.config_hash != project.schema_hash:
        suited = suited_options(project.options, schema)
        if suited != options_of(project):
            log.warning("project %s: the label config cannot use its options; now %s", project.id, suited)
            projects.remember(services.store, project.id, options=suited.model_dump())
            # Label Studio's form still shows the old ones. Telling it takes seconds at worst, which a round has not.
            notes.write(services.store, form_note(project.id), {"behind": True})
    return schema


def _read_sample(services: Services, project_id: int, schema: TaskSchema) -> None:
    """The first look at a large project: a few hundred random tasks, so that labelling can start at once."""
    sample = services.label_studio.sample_tasks(project_id, SAMPLE, random.Random(project_id))
    tasks.remember(services.store, project_id, [_inputs(schema, snapshot) for snapshot in sample], urgent=True)
    _label(services, project_id, schema, sample)


def _read_everything(services: Services, project_id: int, schema: TaskSchema, report: SyncReport) -> None:
    """All tasks and all answers; what we knew and no longer find is gone."""
    client, store = services.label_studio, services.store
    seen: set[int] = set()
    for chunk in in_chunks(client.iter_tasks(project_id), CHUNK):
        seen.update(snapshot.id for snapshot in chunk)
        report.tasks += _remember(services, project_id, schema, chunk)
    report.deleted += _drop(services, project_id, schema, tasks.live_ids(store, project_id) - seen)
    _read_all_answers(services, project_id, schema, report)


def _read_all_answers(services: Services, project_id: int, schema: TaskSchema, report: SyncReport) -> None:
    store = services.store
    before = tasks.with_answers(store, project_id)
    seen: set[int] = set()
    for chunk in in_chunks(services.label_studio.annotated_tasks(project_id), CHUNK):
        seen.update(snapshot.id for snapshot in chunk)
        report.labels += _label(services, project_id, schema, chunk)
    # Not listed is not gone: an import of predictions counts the annotations of all tasks first and writes the counts
    # later, so an answer that comes in between is stored and counted as none. What is not listed is asked for by id.
    for unlisted in in_chunks(sorted(before - seen), CHUNK):
        found = services.label_studio.tasks_with_annotations(project_id, unlisted).values()
        answered = [snapshot for snapshot in found if snapshot.annotations]
        seen.update(snapshot.id for snapshot in answered)
        report.labels += _label(services, project_id, schema, answered)
    gone = sorted(before - seen)
    if schema.kind == "pairing":
        report.labels += pairing.forget_answers(services, project_id, gone)
    else:
        report.labels += tasks.label(store, project_id, [tasks.Labelling(task_id, "none") for task_id in gone])


def _read_changes(services: Services, project: Project, schema: TaskSchema, report: SyncReport) -> None:
    since = parse_time(project.watermark) - OVERLAP
    # The watermark stays where it is until all of it is read: what is cut off is read again from there.
    for chunk in in_chunks(services.label_studio.changed_tasks(project.id, since), CHUNK):
        report.tasks += _remember(services, project.id, schema, chunk)
        report.labels += _label(services, project.id, schema, chunk)


def _compare_counts(
    services: Services, project_id: int, schema: TaskSchema, info: ProjectInfo, report: SyncReport
) -> None:
    """Where the totals differ something was missed, a deletion most likely: look at everything of that kind."""
    client, store = services.label_studio, services.store
    if tasks.counts(store, project_id, services.encoder_id).live != info.task_number:
        known, there = tasks.live_ids(store, project_id), client.task_ids(project_id)
        report.deleted += _drop(services, project_id, schema, known - there)
        for missing in in_chunks(sorted(there - known), CHUNK):
            found = client.tasks_with_annotations(project_id, missing).values()
            report.tasks += _remember(services, project_id, schema, found)
            report.labels += _label(services, project_id, schema, found)
    ours = tasks.count_answers(store, project_id)
    theirs = info.total_annotations_number, info.skipped_annotations_number
    differs, ours_theirs = ours != theirs, " ".join(map(str, ours + theirs))
    # Somebody may have answered between the two readings. A difference that stays the same over two polls is real.
    if differs and projects.get(store, project_id).answers_compared == ours_theirs and not report.full:
        _read_all_answers(services, project_id, schema, report)
    projects.remember(
        store,
        project_id,
        answers_compared=ours_theirs if differs else "",
        unsynced_answers=abs(theirs[0] - ours[0]),
    )


def _remember(services: Services, project_id: int, schema: TaskSchema, snapshots: Iterable[TaskSnapshot]) -> int:
    if schema.kind == "pairing":
        return pairing.remember_tasks(services, project_id, schema, snapshots)
    return tasks.remember(services.store, project_id, [_inputs(schema, snapshot) for snapshot in snapshots])


def _drop(services: Services, project_id: int, schema: TaskSchema, task_ids: Iterable[int]) -> int:
    if schema.kind == "pairing":
        return pairing.drop_tasks(services, project_id, task_ids)
    return tasks.drop(services.store, project_id, task_ids)


def _inputs(schema: TaskSchema, snapshot: TaskSnapshot) -> tasks.Inputs:
    return tasks.Inputs(snapshot.id, schema.image_of(snapshot.data) or "", schema.text_of(snapshot.data) or "")


def _label(services: Services, project_id: int, schema: TaskSchema, snapshots: Iterable[TaskSnapshot]) -> int:
    if schema.kind == "pairing":
        return pairing.read_answers(services, project_id, schema, snapshots)
    return tasks.label(services.store, project_id, [_labelling(schema, s.id, s.annotations or ()) for s in snapshots])


def _labelling(schema: TaskSchema, task_id: int, annotations: Iterable[Mapping[str, Any]]) -> tasks.Labelling:
    answers = [read_answer(schema, annotation) for annotation in annotations]
    resolution = resolve_label(answers, schema.multi_label)
    rows = [
        {
            "annotation_id": answer.annotation_id,
            "task_id": task_id,
            "annotator_id": answer.annotator_id or 0,
            "updated_at": _text(answer.updated_at),
            "choices": list(answer.choices or ()),
            "has_choices": answer.choices is not None,
            "was_cancelled": answer.was_cancelled,
            "ground_truth": answer.ground_truth,
            "problem": answer.problem or "",
        }
        for answer in answers
    ]
    return tasks.Labelling(task_id, resolution.kind, list(resolution.choices or ()), rows)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
