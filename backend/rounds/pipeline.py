"""One active-learning round on one screen: sync -> fit -> select -> publish.

Embedding runs beside it (`backend.rounds.embedding`); a round selects from what is embedded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backend import logs
from backend.errors import LabelStudioRefused, LabelStudioUnreachable, LeaseLost, MmalError, TokenRefused
from backend.labelstudio.schema import TaskSchema
from backend.learners import LateFusionHead
from backend.rounds import measures
from backend.rounds.deciding import decide_labels
from backend.rounds.fitting import RoundArrays, likeliest_answer, load_arrays
from backend.rounds.models import fit_model
from backend.rounds.opinions import ask_opinions
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.round import run_pairing_round
from backend.rounds.publishing import clear_away, publish
from backend.rounds.selection import Place, choose_queue
from backend.rounds.services import Services, options_of, schema_of
from backend.rounds.sync import sync_project
from backend.store import control_sample, leases, projects, rounds, tasks
from backend.store.leases import HeldLease
from backend.store.tables import Round

log = logging.getLogger(__name__)

POINTS = ("recovered", "synced", "fitted", "selected", "imported", "explained", "switched", "in force", "cleared")
"""Named points of a round, in their order; the fault tests stop a worker at each."""
PAIRING_POINTS = ("made", "asked")
"""Further ones of a round that makes tasks: they are in Label Studio; they are noted in the store."""


@dataclass
class Progress:
    """Where a round is: renews its lease, notes the step and the seconds since the one before."""

    services: Services
    opened: Round
    lease: HeldLease
    hold: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __call__(self, point: str) -> None:
        """Reach a named point."""
        now = time.monotonic()
        self.seconds[point], self.since = round(now - self.since, 3), now
        log.debug("%s after %.3f s", point, self.seconds[point])
        self.lease.check()
        rounds.reach(self.services.store, self.opened.id, point, seconds=self.seconds, counts=self.counts)
        self.hold(point)


def run_round(
    services: Services, project_id: int, holder: str, hold: Callable[[str], None] = lambda point: None
) -> Round | None:
    """Run one round if one is asked for and nobody else is running it.

    Parameters
    ----------
    holder
        Names this worker in the lease.
    hold
        Called at each named point; the fault tests stop the worker there.

    Returns
    -------
    Round or None
        The round, whatever became of it.
    """
    seconds = services.settings.lease_seconds
    with leases.held(services.store, f"round {project_id}", holder, seconds) as lease, logs.context():
        project = projects.get(services.store, project_id)
        why = project.round_requested
        # A project that was given back meanwhile is left alone.
        if lease is None or project.state != "attached" or not why:
            return None
        opened: Round | None = None
        started = time.monotonic()
        try:
            versions = recover(services, project_id)
            if services.store.clock() < projects.get(services.store, project_id).round_not_before:
                # A round before it was cut off: the next one waits, lest it kill one worker after the other.
                return None
            opened = _open(services, project_id, why, versions)
            logs.bind(round_id=opened.id)
            log.info("round %s begins: %s", opened.version, why)
            progress = Progress(services, opened, lease, hold, since=started)
            progress("recovered")
            _run(services, opened, progress)
            projects.record_success(services.store, project_id)
            log.info("round %s ends after %.1f s: %s", opened.version, time.monotonic() - started, progress.counts)
        except LeaseLost as lost:
            # Whoever has the lease now settles what this round has left.
            log.warning("project %s: %s", project_id, lost)
            services.tally.count(measures.FAILURES, "round", type(lost).__name__)
            return None if opened is None else rounds.get(services.store, opened.id)
        except Exception as error:
            _fail(services, project_id, opened, why, error)
            if not isinstance(error, MmalError):
                log.exception("project %s: round failed", project_id)
        if opened is None:
            return None
        ended = rounds.get(services.store, opened.id)
        if ended is not None:
            services.tally.count(measures.ROUNDS, project_id, ended.status)
            services.tally.observe(measures.ROUND_SECONDS, project_id, seconds=time.monotonic() - started)
        return ended


def recover(services: Services, project_id: int) -> dict[str, int]:
    """Find out what became of rounds that were cut off, and make Label Studio and the store agree.

    A round whose version Label Studio already serves has been published; any other one has not, and is asked for
    again, after a pause that grows as after failures: it may be what killed its worker. Then our version in force is
    put right where a stale settings page reverted it.

    Returns
    -------
    dict
        Versions that Label Studio holds, with their numbers of predictions.
    """
    serving = services.label_studio.project(project_id).model_version
    for cut_off in rounds.of_project(services.store, project_id, "running", "failed", limit=20):
        if cut_off.version == serving:
            rounds.put_in_force(services.store, cut_off)
            log.warning("project %s: %s was published by a round that was cut off; adopted", project_id, serving)
        elif cut_off.status == "running":
            why = f"its worker died after {cut_off.step!r}" if cut_off.step else "its worker died as it began"
            text = f"round {cut_off.version} was cut off: {why}"
            if rounds.give_up(services.store, cut_off, "abandoned", text):
                services.tally.count(measures.ROUNDS, project_id, "abandoned")
    versions = services.label_studio.model_versions(project_id)
    keep_in_force(services, project_id, serving, versions)
    clear_away(services, project_id, versions)
    left = uncleared(services, project_id)
    if left is not None:
        rounds.reach(services.store, left.id, POINTS[-1])
    return versions


def uncleared(services: Services, project_id: int) -> Round | None:
    """The round in force, where it has not cleared away what was in force before it."""
    in_force = rounds.in_force(services.store, projects.get(services.store, project_id))
    return None if in_force is None or in_force.step == POINTS[-1] else in_force


def keep_in_force(services: Services, project_id: int, serving: str | None, versions: Container[str]) -> None:
    """Put our version back where something else replaced it; ask for a round where it is gone.

    Parameters
    ----------
    serving
        The version Label Studio orders by.
    versions
        All versions that it holds.
    """
    version = projects.get(services.store, project_id).version
    if not version or serving == version:
        return
    if version in versions:
        log.warning("project %s: model_version was %r, set back to %r", project_id, serving, version)
        services.label_studio.set_model_version(project_id, version)
    else:
        projects.remember(services.store, project_id, version="")
        projects.request_round(services.store, project_id, f"the queue {version} was deleted in Label Studio")


def _run(services: Services, opened: Round, progress: Progress) -> None:
    project = projects.get(services.store, opened.project_id)
    if project.watermark:
        sync_project(services, project.id, in_round=True)
        project = projects.get(services.store, project.id)
    # Else the first reading of all tasks is still going on beside this round, which takes what is there.
    schema, options = schema_of(project), options_of(project)
    if options.model_dump() != opened.options:
        rounds.choose_by(services.store, opened, **_choice(opened.number, options))
    if schema.kind == "pairing":
        run_pairing_round(services, opened, schema, progress)
        return
    decide_labels(services, project, schema, options)
    ask_opinions(services, project.id)
    arrays = load_arrays(services, project.id, schema)
    labelled, known = int(arrays.labelled.sum()), tasks.counts(services.store, project.id, services.encoder_id)
    progress.counts |= {
        "embedded": known.embedded,
        "answered": known.by_label.get("label", 0),
        "labels": labelled,
        "pool": len(arrays.labelled) - labelled,
    }
    progress("synced")

    model = fit_model(services, arrays, schema, options, opened.seed)
    if model is not None:
        path = rounds.save_head(services.store, opened, *model.state())
        head_file = str(path.relative_to(services.store.data_dir))
        rounds.reach(services.store, opened.id, "saved", head=head_file, schema_hash=schema.config_hash)
    progress("fitted")

    head = None if model is None else model.head
    seen = arrays if model is None else replace(arrays, features=dict(model.embed(arrays.features)))
    places = choose_queue(seen, head, options, len(schema.choices), schema.multi_label, opened.seed)
    progress.counts |= {"queue": len(places), "batch": sum(place.role != "reserve" for place in places)}
    progress("selected")

    if not places:
        rounds.close(services.store, opened.id, "empty")
        return
    _note_predictions(services, opened, seen, head, schema, places)
    answers = _answers(seen, head, schema, places) if options.prelabel and head is not None else {}
    progress.counts["prefilled"] = len(answers)
    published = publish(services, opened, schema, places, answers, progress)
    progress.counts["published"] = len(published)
    progress("cleared")


def _open(services: Services, project_id: int, why: str, versions: Iterable[str]) -> Round:
    project = projects.get(services.store, project_id)
    options = options_of(project)
    # What was asked for since this round was taken up is part of it: nothing was read yet.
    why = project.round_requested or why
    number = _next_number(project.round_number, versions)
    return rounds.start(
        services.store,
        project_id,
        number=number,
        trigger=why,
        seed=round_seed(project_id, number),
        **_choice(number, options),
    )


def _choice(number: int, options: ProjectOptions) -> dict[str, Any]:
    """What a round of this number is recorded as choosing by."""
    strategy = options.strategy
    return {"version": f"v{number}-{strategy}", "strategy": strategy, "options": options.model_dump()}


def round_seed(project_id: int, number: int) -> int:
    """Seed of a round: the same data and the same round give the same queue.

    Below 2**31, because PostgreSQL's integers end there.
    """
    return int(np.random.SeedSequence([project_id, number]).generate_state(1)[0]) % 2**31


def _next_number(last: int, versions: Iterable[str]) -> int:
    """One more than any round of ours, and than any version in Label Studio that looks like ours.

    A name used twice would merge two queues; the store may be younger than the project.
    """
    heads = (name.split("-")[0] for name in versions)
    taken = [int(head[1:]) for head in heads if head[:1] == "v" and head[1:].isdecimal()]
    return max([last, *taken]) + 1


def _note_predictions(
    services: Services,
    opened: Round,
    arrays: RoundArrays,
    head: LateFusionHead | None,
    schema: TaskSchema,
    places: Sequence[Place],
) -> None:
    """Keep what the head says of its control sample, before anybody answers: that measures how well it does."""
    if head is None:
        return
    drawn = [place for place in places if place.role == "control"]
    answers = _answers(arrays, head, schema, drawn)
    # Where no choice of several is likely, it says that none applies.
    said = {place.task_id: answers[place.task_id][0] if place.task_id in answers else [] for place in drawn}
    control_sample.note(services.store, opened, said)


def _answers(
    arrays: RoundArrays, head: LateFusionHead, schema: TaskSchema, places: Sequence[Place]
) -> dict[int, tuple[list[str], float]]:
    position = {int(task_id): i for i, task_id in enumerate(arrays.task_ids)}
    rows = [position[place.task_id] for place in places]
    probabilities = head.probabilities({m: np.asarray(x[rows], np.float32) for m, x in arrays.features.items()})
    likeliest = (likeliest_answer(p, schema) for p in probabilities)
    return {place.task_id: answer for place, answer in zip(places, likeliest, strict=True) if answer}


def _is_unanswered(error: Exception) -> bool:
    """Label Studio is away or ill; any other refusal would be the same ten seconds later."""
    ill = isinstance(error, LabelStudioRefused) and error.status >= 500
    return ill or isinstance(error, (LabelStudioUnreachable, TokenRefused))


def _is_serving(services: Services, opened: Round) -> bool:
    """The call that switches took effect, whatever Label Studio answered to it, and the store does not know yet."""
    now = rounds.get(services.store, opened.id)
    if now is None or now.status != "running" or now.step not in ("explained", "switched"):
        return False
    try:
        return services.label_studio.project(opened.project_id).model_version == opened.version
    except MmalError:
        # `recover` finds it out.
        return False


def _fail(services: Services, project_id: int, opened: Round | None, why: str, error: Exception) -> None:
    text = f"{type(error).__name__}: {error}"
    log.error("project %s: round failed: %s", project_id, text)
    services.tally.count(measures.FAILURES, "round", type(error).__name__)
    longest = projects.LONGEST_BACKOFF_UNANSWERED if _is_unanswered(error) else projects.LONGEST_BACKOFF
    if opened is None:
        projects.record_failure(services.store, project_id, text, pause=True, longest=longest, ask_again=why)
        return
    if _is_serving(services, opened):
        rounds.put_in_force(services.store, opened)
    if not rounds.give_up(services.store, opened, "failed", text, longest=longest):
        ended = rounds.get(services.store, opened.id)
        if ended is not None and ended.status == "published":
            # What it was to answer is answered. What it did not clear away goes with the next `recover`.
            projects.record_failure(services.store, project_id, text)
