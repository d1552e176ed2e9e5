"""What is in force in a project, in figures: for `mmal status`, the admin API and the metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from backend.errors import LabelConfigUnsupported
from backend.labelstudio.schema import TaskSchema
from backend.rounds.accuracy import Accuracy, measure_accuracy
from backend.rounds.agreement import Agreement, measure_agreement
from backend.rounds.deciding import answers_of_several
from backend.rounds.embedding import seconds_left
from backend.rounds.opinions import opinions_waiting
from backend.rounds.services import Services, schema_of
from backend.store import catalogue, control_sample, leases, pauses, rounds, tasks
from backend.store.tables import Project


@dataclass(frozen=True)
class ProjectStatus:
    """The state of one project. Times are seconds since the epoch, 0 for never.

    unfitted_labels: came after the last fit and have their vectors: the next one learns from them.
    items: of a pairing project, modality -> state -> number; pairs: known at the last round.
    opinions_waiting: undecided tasks that one more annotator was asked for; agreement: only where it was asked for.
    images_deferred: tasks and items whose image's host does not answer; encoder_failing: why nothing is embedded.
    accuracy: by the control sample; None where the project does not ask for classes.
    """

    project_id: int
    title: str
    state: str
    problem: str
    strategy: str
    options: dict[str, Any]
    version: str
    published_at: float
    queue_remaining: int
    queue_length: int
    batch_remaining: int
    batch_size: int
    tasks: int
    embedded: int
    embedding_seconds_left: float
    unreadable_media: int
    labels: int
    unfitted_labels: int
    unsynced_answers: int
    ties: int
    skipped: int
    unreadable_answers: int
    pool: int
    rounds: int
    rounds_failed: int
    round_requested: str
    round_running: str
    round_step: str
    round_seconds: dict[str, float] = field(default_factory=dict)
    synced_at: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0
    items: dict[str, dict[str, int]] = field(default_factory=dict)
    pairs: int = 0
    images_deferred: int = 0
    images_deferred_why: str = ""
    images_tried_again_at: float = 0.0
    encoder_failing: str = ""
    encoder_tried_again_at: float = 0.0
    opinions_waiting: int = 0
    agreement: Agreement | None = None
    accuracy: Accuracy | None = None


def project_status(services: Services, project: Project, *, with_agreement: bool = False) -> ProjectStatus:
    """Read the state of a project from the store.

    Parameters
    ----------
    with_agreement
        Compare the annotators too, which reads every answer to tasks with several.
    """
    store = services.store
    schema = classes_of(project)
    counts = tasks.counts(store, project.id, services.encoder_id)
    latest = rounds.of_project(store, project.id, limit=1)
    in_force = rounds.in_force(store, project)
    queue_left, batch_left = rounds.remaining(store, in_force.id) if in_force else (0, 0)
    fitted = int(in_force.counts.get("labels", 0)) if in_force else 0
    labels = counts.by_label.get("label", 0)
    deferred, failing = pauses.find(store, "media", project.id), pauses.find(store, "encoder", project.id)
    return ProjectStatus(
        project_id=project.id,
        title=project.title,
        state=project.state,
        problem=project.problem,
        strategy=str(project.options.get("strategy", "auto")),
        options=project.options,
        version=project.version,
        published_at=project.published_at,
        queue_remaining=queue_left,
        queue_length=int(in_force.counts.get("queue", 0)) if in_force else 0,
        batch_remaining=batch_left,
        batch_size=int(in_force.counts.get("batch", 0)) if in_force else 0,
        tasks=counts.live,
        embedded=counts.embedded,
        embedding_seconds_left=seconds_left(services, project.id, counts),
        unreadable_media=tasks.count_unreadable(store, project.id),
        labels=labels,
        unfitted_labels=max(0, counts.labels - fitted),
        unsynced_answers=project.unsynced_answers,
        ties=counts.by_label.get("tie", 0),
        skipped=counts.by_label.get("skipped", 0),
        unreadable_answers=counts.by_label.get("unreadable", 0),
        pool=counts.pool,
        rounds=project.round_number,
        rounds_failed=len(rounds.names(store, project.id, "failed")),
        round_requested=project.round_requested,
        round_running=leases.holder_of(store, f"round {project.id}", services.settings.lease_seconds),
        round_step=latest[0].step if latest else "",
        round_seconds=dict(latest[0].seconds) if latest else {},
        synced_at=project.synced_at,
        last_error=project.last_error,
        last_error_at=project.last_error_at,
        items=catalogue.counts(store, project.id, services.encoder_id),
        pairs=int(in_force.counts.get("pairs", 0)) if in_force else 0,
        images_deferred=_images_deferred(services, project) if deferred else 0,
        images_deferred_why=deferred.why if deferred else "",
        images_tried_again_at=deferred.until if deferred else 0.0,
        encoder_failing=failing.why if failing else "",
        encoder_tried_again_at=failing.until if failing else 0.0,
        opinions_waiting=len(opinions_waiting(services, project.id)),
        agreement=_agreement(services, project, schema) if with_agreement and schema else None,
        accuracy=_accuracy(services, project, schema) if schema else None,
    )


def _images_deferred(services: Services, project: Project) -> int:
    items = catalogue.waiting_for_images(services.store, project.id, services.encoder_id)
    return tasks.to_try_again(services.store, project.id) + items


def classes_of(project: Project) -> TaskSchema | None:
    """What the label config asks for, where these are classes."""
    if not project.label_config:
        return None
    try:
        schema = schema_of(project)
    except LabelConfigUnsupported:
        return None  # the state says so already
    return schema if schema.kind == "classification" else None


def _agreement(services: Services, project: Project, schema: TaskSchema) -> Agreement | None:
    return measure_agreement(answers_of_several(services.store, project.id), multi_label=schema.multi_label)


def _accuracy(services: Services, project: Project, schema: TaskSchema) -> Accuracy:
    return measure_accuracy(control_sample.by_round(services.store, project), multi_label=schema.multi_label)


def describe_wait(moment: float) -> str:
    """When that will be: "now", "in 40 s", "in 2 min"."""
    wait = moment - time.time()
    if wait < 1:
        return "now"
    return f"in {wait:.0f} s" if wait < 120 else f"in {wait / 60:.0f} min"


def describe_age(moment: float) -> str:
    """ "12 s ago", "3 min ago", "2 h ago", "never"."""
    if not moment:
        return "never"
    age = max(0.0, time.time() - moment)
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if age < 120 * size or unit == "h":
            return f"{age / size:.0f} {unit} ago"
    return ""
