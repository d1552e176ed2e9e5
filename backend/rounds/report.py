"""The state of projects, queues, rounds and picks in lines a person reads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from backend.errors import TaskUnknown
from backend.rounds.accuracy import LEAST_ANSWERS, Estimate, accuracy_curve
from backend.rounds.reasons import sentence
from backend.rounds.services import Services, schema_of
from backend.rounds.status import ProjectStatus, classes_of, describe_age, describe_wait
from backend.store import control_sample, projects, rounds

# Annotators and classes in a line of `mmal status`; --json has all of them.
LISTED = 6


def status_lines(status: ProjectStatus) -> list[str]:
    """A project in a few lines; the last ones only where something is wrong or going on."""
    lines = [
        f"project {status.project_id}: {status.title or '(no title yet)'}  [{status.state}]",
        f"  strategy   {status.strategy}",
        f"  queue      {status.version or 'none in force'}: {status.queue_remaining} of {status.queue_length} tasks"
        f" left, {status.batch_remaining} of {status.batch_size} of the batch;"
        f" published {describe_age(status.published_at)}",
        f"  labels     {status.labels} trained on or waiting to be, {status.unfitted_labels} since the last fit;"
        f" {status.skipped} skipped, {status.ties} ties, {status.unreadable_answers} unreadable",
        f"  embedding  {status.embedded} of {status.tasks} tasks{_time_left(status.embedding_seconds_left)};"
        f" {status.unreadable_media} with an unreadable image or text",
        f"  rounds     {status.rounds} started, {status.rounds_failed} failed; last step {status.round_step or '-'}",
        f"  last look  {describe_age(status.synced_at)}",
    ]
    if status.images_deferred:
        lines.append(
            f"  images     {status.images_deferred} cannot be had for now, tried again"
            f" {describe_wait(status.images_tried_again_at)}: {status.images_deferred_why}"
        )
    if status.items:
        held = ", ".join(f"{c.get('embedded', 0)} {modality}s" for modality, c in sorted(status.items.items()))
        lines.append(f"  catalogue  {held} embedded; {status.pairs} pairs at the last round")
    lines += _accuracy_lines(status) + _agreement_lines(status)
    if status.round_running:
        lines.append(f"  running    a round, by {status.round_running}")
    if status.round_requested:
        lines.append(f"  requested  a round: {status.round_requested}")
    if status.encoder_failing:
        again = describe_wait(status.encoder_tried_again_at)
        lines.append(f"  PROBLEM    nothing is embedded, tried again {again}: {status.encoder_failing}")
    if status.problem:
        lines.append(f"  PROBLEM    {status.problem}")
    if status.last_error:
        lines.append(f"  ERROR      {describe_age(status.last_error_at)}: {status.last_error}")
    return lines


def _accuracy_lines(status: ProjectStatus) -> list[str]:
    found = status.accuracy
    if found is None or not (found.control_answers or status.options.get("audit_share", True)):
        return []
    if found.now is None:
        return [f"  accuracy   told from {LEAST_ANSWERS} control answers on; {found.control_answers} so far"]
    line = f"  accuracy   {_share(found.now)} of {found.now.answers} control answers {_interval(found.now)}"
    if found.measure == "exact match":
        line += ", every label right"
    if found.first is not None:
        line += f", {_share(found.first)} at first"
    if found.now.prefilled:
        line += f"; {found.now.prefilled} of them PRE-FILLED, so rather less"
    return [line]


def accuracy_curve_lines(services: Services, project_id: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The accuracy by the control sample round by round, as lines and as rows."""
    project = projects.get(services.store, project_id)
    if classes_of(project) is None:
        return [f"project {project_id} does not ask for classes; see `mmal catalogue show` for one that pairs"], []
    rounds_ = control_sample.by_round(services.store, project)
    curve = list(accuracy_curve(rounds_))
    if not curve:
        answers = sum(one.answers for one in rounds_)
        return [f"project {project_id} has {answers} control answers; {LEAST_ANSWERS} are the least to tell from"], []
    lines = ["round   labels  control answers  of rounds    accuracy  95% interval"]
    for e in curve:
        pooled, prefilled = f"{e.since} to {e.until}", f"  {e.prefilled} PRE-FILLED" if e.prefilled else ""
        lines.append(
            f"{e.until:5d}  {e.labels:7d}  {e.answers:15d}  {pooled:11s}  {_share(e):>8s}  {_interval(e)}{prefilled}"
        )
    return lines, [asdict(e) for e in curve]


def _share(found: Estimate) -> str:
    return f"{found.accuracy:.0%}"


def _interval(found: Estimate) -> str:
    return f"({100 * found.low:.0f} to {100 * found.high:.0f}%)"


def _agreement_lines(status: ProjectStatus) -> list[str]:
    lines = []
    if status.opinions_waiting:
        lines.append(f"  opinions   another one asked for on {status.opinions_waiting} tasks")
    found = status.agreement
    if found is not None:
        alpha = "-" if found.alpha is None else f"{found.alpha:.2f}"
        people = [f"{a.annotator}: {a.share:.0%} of {a.answers}" for a in found.annotators]
        classes = [f"{c.choice}: {c.share:.0%} of {c.answers}" for c in found.classes]
        lines.append(f"  agreement  alpha {alpha} on {found.tasks} tasks with several answers; lowest first:")
        lines.append(f"    annotators  {_first(people)}")
        lines.append(f"    classes     {_first(classes)}")
    return lines


def _first(items: Sequence[str]) -> str:
    more = len(items) - LISTED
    return ", ".join(items[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _time_left(seconds: float) -> str:
    if seconds <= 0:
        return ""
    return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


def queue_lines(services: Services, project_id: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The queue in force, as lines and as rows."""
    project = projects.get(services.store, project_id)
    in_force = rounds.in_force(services.store, project)
    if in_force is None:
        return [f"project {project_id} has no queue in force yet"], []
    rows: list[dict[str, Any]] = [
        {"rank": e.rank, "task": e.task_id, "role": e.role, "reason": e.reason}
        for e in rounds.queue(services.store, in_force.id)
    ]
    lines = [f"{in_force.version}, published {describe_age(project.published_at)}"]
    lines += [f"{row['rank'] + 1:5d}  task {row['task']:<9d} {row['role']:8s} {row['reason']}" for row in rows]
    return lines, rows


def explain_lines(services: Services, project_id: int, task_id: int) -> list[str]:
    """Why a task was chosen: the sentence the annotator read, and the figures behind it.

    Raises
    ------
    TaskUnknown
        The task was in no queue of the project.
    """
    project = projects.get(services.store, project_id)
    found = rounds.last_entry(services.store, project_id, task_id)
    if found is None:
        raise TaskUnknown(
            f"task = {task_id} was in no queue of project {project_id}."
            f" `mmal queue show --project {project_id}` lists the one in force."
        )
    entry, chosen = found
    lines = [
        f"task {task_id}: place {entry.rank + 1} of {chosen.counts.get('queue', '?')}"
        f" in {chosen.version} ({entry.role})",
        f"  {sentence(entry.reason, pairing=schema_of(project).kind == 'pairing')}",
        f"  round asked for because: {chosen.trigger}",
        f"  fitted on {chosen.counts.get('labels', 0)} labels, chosen from {chosen.counts.get('pool', 0)} tasks"
        f" by {chosen.strategy}",
    ]
    return lines + [f"  {name}: {value:g}" for name, value in sorted(entry.figures.items())]


def round_lines(services: Services, project_id: int) -> list[str]:
    """The rounds of a project, the latest first."""
    projects.get(services.store, project_id)
    lines = []
    for r in rounds.of_project(services.store, project_id):
        took = f"{r.finished_at - r.started_at:.1f} s" if r.finished_at else "running"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(r.started_at))
        lines.append(
            f"{r.version:24s} {r.status:10s} {when}  {took:>9s}  {r.counts.get('labels', 0)} labels  {r.trigger}"
        )
        if r.error:
            lines.append(f"    {r.error}")
    return lines or [f"project {project_id} has had no round yet"]
