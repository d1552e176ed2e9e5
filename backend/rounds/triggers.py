"""When a round is due. Asked after every look at Label Studio and after every embedded chunk."""

from __future__ import annotations

import math

from backend.rounds.pairing.triggers import due_pairing
from backend.rounds.services import Services, options_of, schema_of
from backend.store import projects, rounds, tasks
from backend.store.tables import Project, Round

# The first queue is chosen from this many random tasks, however large the pool is.
FIRST_SAMPLE = 256
# Less than this many batches left in the queue: publish again before Label Studio turns random. Of a queue of hardly
# more than a batch less, or the first answers would do: not before `refresh_share` of a batch is gone.
LOW_BATCHES = 2


def due(services: Services, project: Project) -> str:
    """Why a round is due now; empty when none is."""
    counts = tasks.counts(services.store, project.id, services.encoder_id)
    if counts.pool == 0:
        return ""
    complete = bool(project.watermark) and counts.live - counts.embedded == _waiting(services, project, counts)
    latest = rounds.of_project(services.store, project.id, "published", limit=1)
    if not latest:
        return "first queue" if complete or counts.embedded >= FIRST_SAMPLE else ""
    before = int(latest[0].counts.get("embedded", 0))
    if counts.embedded >= 2 * before:
        return "twice as many tasks are embedded"
    in_force = rounds.in_force(services.store, project)
    if in_force is None:
        return "no queue is in force"
    new_tasks = counts.embedded - before if complete else 0
    return _used_up(services, project, in_force, counts) or _news(services, project, in_force, counts, new_tasks)


def _waiting(services: Services, project: Project, counts: tasks.Counts) -> int:
    """Tasks without vectors that nobody waits for: their host does not answer."""
    if counts.embedded == counts.live:
        return 0
    return tasks.waiting_for_images(services.store, project.id, services.encoder_id)


def _used_up(services: Services, project: Project, in_force: Round, counts: tasks.Counts) -> str:
    options = options_of(project)
    queue_left, batch_left = rounds.remaining(services.store, in_force.id)
    batch = int(in_force.counts.get("batch", 0))
    if batch - batch_left >= options.refresh_share * batch:
        return f"{batch - batch_left} of {batch} tasks of the batch are answered"
    answered_first = math.ceil(options.refresh_share * options.batch_size)
    low = min(LOW_BATCHES * options.batch_size, options.queue_length - answered_first + 1)
    if queue_left < low and queue_left < min(counts.pool, options.queue_length):
        return f"only {queue_left} tasks are left in the queue"
    return ""


def _news(services: Services, project: Project, in_force: Round, counts: tasks.Counts, new_tasks: int) -> str:
    """A batch's worth of labels or of tasks that the queue in force was chosen without; a few of them can wait.

    Else a project into which one task drips a minute would have one round a minute, each of which replaces the queue.
    """
    options, fresh = options_of(project), _fresh_labels(in_force, counts)
    if fresh >= options.batch_size:
        return f"{fresh} labels arrived, most of them from outside the batch"
    if new_tasks >= options.batch_size:
        return f"{new_tasks} new tasks are embedded"
    if services.store.clock() - project.published_at < options.refresh_hours * 3600:
        return ""
    arrived = ((fresh, "label"), (new_tasks, "task"))
    news = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in arrived if count > 0]
    since = f"since the queue was published, more than {options.refresh_hours:g} h ago"
    return f"{' and '.join(news)} arrived {since}" if news else ""


def _fresh_labels(in_force: Round, counts: tasks.Counts) -> int:
    """Labels that were given since the round and that another one could learn from.

    A label without a vector teaches nothing, and one that has a vector since was given before: while a project that
    came with labels is embedded, rounds follow what is embedded, not each of these labels.
    """
    learnable = counts.labels - int(in_force.counts.get("labels", 0))
    if "answered" not in in_force.counts:  # a round of an earlier version
        return learnable
    return min(learnable, counts.by_label.get("label", 0) - int(in_force.counts["answered"]))


def request_if_due(services: Services, project_id: int) -> str:
    """Ask for a round where one is due, none is asked for and none is running; tells why.

    What is due while a round runs is seen when it has ended: half of what it is about to publish would
    otherwise be taken for missing.
    """
    project = projects.get(services.store, project_id)
    if project.round_requested or project.state != "attached":
        return ""
    pairing = bool(project.label_config) and schema_of(project).kind == "pairing"
    why = due_pairing(services, project) if pairing else due(services, project)
    lease, seconds = f"round {project_id}", services.settings.lease_seconds
    if not why or not projects.request_round_if_unchanged(services.store, project, why, lease, seconds):
        return ""
    return why
