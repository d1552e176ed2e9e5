"""A project's way in and out: connected in Label Studio, set up by the worker, options changed, given back."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from backend.errors import ConfigurationError, ForeignPredictions, MmalError, ProjectOfAnother
from backend.labelstudio import project_setup
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from backend.rounds import origin
from backend.rounds.opinions import withdraw_opinions
from backend.rounds.options import ProjectOptions, change_options, parse_extra_params
from backend.rounds.publishing import live_version
from backend.rounds.services import Services, options_of, schema_of
from backend.store import leases, notes, origins, projects, rounds, tasks
from backend.store.tables import Project

log = logging.getLogger(__name__)

# Options whose change makes the published queue wrong or differently built.
QUEUE_OPTIONS = (
    "strategy",
    "strategy_options",
    "batch_size",
    "queue_size",
    "balance",
    "audit_share",
    "prelabel",
    "control",
    "learner",
    "matching",
    "candidates",
    "coverage",
    "one_to_one",
    "alignment_loss",
    "stream_buffer",
    "stream_keep",
    "label_model",
    "opinions",
)

DETACHED: Mapping[str, Any] = {"state": "detached", "original": {}, "extra_params_seen": ""}


def connect(services: Services, project_id: int, label_config: str, extra_params: Any) -> Project:
    """What /setup does, at once and as often as Label Studio likes: it calls this at every look at the settings.

    The options are taken over only when they differ from those Label Studio sent last, so that a strategy
    switched elsewhere is not switched back by somebody who merely opens a page.

    Raises
    ------
    ConfigurationError
        Options that cannot be used; nothing was changed.
    LabelConfigUnsupported
        Saying what the label config lacks.
    ForeignPredictions
        The project was refused when the worker looked at it.
    """
    if project_id <= 0:
        raise ConfigurationError("project = 0: Label Studio sent no project id. Connect the backend to a project.")
    store = services.store
    project = projects.find(store, project_id)
    seen = json.dumps(extra_params, sort_keys=True)
    changes = parse_extra_params(extra_params) if project is None or seen != project.extra_params_seen else {}
    options = project.options if project else {}
    control = changes.get("control", options.get("control"))
    schema = TaskSchema.from_label_config(label_config, control)
    if project is None:
        chosen = change_options({}, changes, schema).model_dump()
        return projects.remember(
            store, project_id, label_config=label_config, options=chosen, extra_params_seen=seen, state="new"
        )
    if project.state == "refused":
        raise ForeignPredictions(project.problem)
    if changes:
        set_options(services, project_id, changes, why="Label Studio's model settings", tell=False)
    fields: dict[str, Any] = {"extra_params_seen": seen} if seen != project.extra_params_seen else {}
    if project.state == "detached":
        fields["state"] = "new"
    return projects.remember(store, project_id, **fields) if fields else project


def set_options(
    services: Services, project_id: int, changes: Mapping[str, Any], why: str, *, tell: bool = True
) -> ProjectOptions:
    """Change options of a project, by whatever way; in force with the next batch, which is asked for at once.

    Parameters
    ----------
    why
        The way they were changed, for the log and the round.
    tell
        Write them into Label Studio's model settings too, so that the form there shows what is in force.

    Raises
    ------
    ProjectUnknown, ConfigurationError
        Nothing was changed.
    """
    project = projects.get(services.store, project_id)
    schema = schema_of(project) if project.label_config else None
    before = options_of(project)
    pool_size = tasks.counts(services.store, project_id, services.encoder_id).live
    after = change_options(project.options, changes, schema, pool_size)
    if after != before:
        projects.remember(services.store, project_id, options=after.model_dump())
        log.info("project %s: options changed through %s: %s", project_id, why, dict(changes))
    # Before any queue is chosen there is nothing to choose anew: it will be chosen with these options.
    other_queue = any(getattr(after, name) != getattr(before, name) for name in QUEUE_OPTIONS)
    if other_queue and rounds.is_choosing_or_in_force(services.store, project_id):
        projects.request_round(services.store, project_id, f"options changed through {why}", at_once=True)
    if tell and after != before:
        _tell_label_studio(services, project_id, after)
    return after


def form_note(project_id: int) -> str:
    """Name of the note that Label Studio's model settings show options that are not in force any more."""
    return f"form {project_id}"


def show_options(services: Services, project_id: int) -> None:
    """Write options that a changed label config replaced into Label Studio's model settings, where there are some."""
    note = form_note(project_id)
    if notes.read(services.store, note):
        # Once only: a form that Label Studio does not take must not keep every look waiting.
        notes.write(services.store, note, {})
        _tell_label_studio(services, project_id, options_of(projects.get(services.store, project_id)))


def _tell_label_studio(services: Services, project_id: int, options: ProjectOptions) -> None:
    try:
        origin.confirm(services, project_id)
        connected = project_setup.connection(services.label_studio, project_id, services.settings.backend_url)
        if connected is not None:
            services.label_studio.update_backend(connected, options=shown_options(options))
    except MmalError as error:
        # They are in force all the same; only the form is behind until the next attach.
        log.warning("project %s: Label Studio's model settings still show the old options: %s", project_id, error)


def shown_options(options: ProjectOptions) -> dict[str, Any]:
    """What Label Studio's model settings show: the strategy, and what differs from the defaults."""
    return {"strategy": options.strategy, **options.model_dump(exclude_defaults=True)}


def attach_project(services: Services, project_id: int, *, take_over: bool = False) -> Project:
    """Set a project up in Label Studio: sampling, our webhook, the connection, the queue tab. Safe to repeat.

    Connecting makes Label Studio call /setup, which makes the worker want to attach too: one at a time.

    Raises
    ------
    ForeignPredictions
        The project has predictions of others and `take_over` is not set; nothing was changed there.
    ProjectOfAnother
        It is attached, and in another Label Studio.
    LabelConfigUnsupported, LabelStudioError
    """
    with _alone(services, f"attach {project_id}"):
        return _attach(services, project_id, take_over)


def attach_if_new(services: Services, project_id: int) -> None:
    """Attach a project that was connected in Label Studio, unless somebody else did so meanwhile."""
    with _alone(services, f"attach {project_id}"):
        if projects.get(services.store, project_id).state == "new":
            _attach(services, project_id, take_over=False)


@contextmanager
def _alone(services: Services, job: str) -> Iterator[None]:
    """Wait until nobody else does this job, then keep everybody else from it."""
    holder = f"connecting {uuid.uuid4()}"
    while True:
        with leases.held(services.store, job, holder, services.settings.lease_seconds) as lease:
            if lease is not None:
                yield
                return
        time.sleep(0.2)


def _attach(services: Services, project_id: int, take_over: bool) -> Project:
    store, client, settings = services.store, services.label_studio, services.settings
    project = projects.find(store, project_id)
    info = client.project(project_id)
    schema = TaskSchema.from_label_config(info.label_config, options_of(project).control if project else None)
    if project is None:
        project = projects.remember(
            store,
            project_id,
            label_config=info.label_config,
            options=change_options({}, {}, schema).model_dump(),
            state="new",
        )
    if project.state == "attached":
        origin.compare(services, info)
    elif origins.find(store, project_id) != origin.origin_of(services, info):
        # Not attached at the moment, so it may be another project from now on. What is known of the old one's tasks
        # is compared with all of this one's.
        project = projects.remember(store, project_id, watermark="", schema_hash="")
        origins.note(store, project_id, origin.origin_of(services, info))
    origin.accept(services, project_id)
    if not take_over and not project.original:
        try:
            project_setup.refuse_foreign_predictions(client, project_id, our_versions(services, project_id))
        except ForeignPredictions as error:
            projects.remember(store, project_id, state="refused", problem=str(error))
            raise
    # Noted before anything is touched: a second attempt must not take our own settings for the original ones.
    if not project.original:
        projects.remember(store, project_id, original=project_setup.read_original(client, project_id))
    if project.state == "refused":
        # Taken over now: /setup, which Label Studio calls while it connects, must no longer refuse.
        projects.remember(store, project_id, state="new", problem="")
    project_setup.attach(
        client,
        project_id,
        settings.backend_url,
        notes.events_secret(store),
        options=shown_options(options_of(project)),
        basic_auth=settings.basic_auth,
        former=attached_at(services, project_id),
    )
    notes.write(store, _address_note(project_id), {"url": settings.backend_url})
    projects.record_success(store, project_id)
    return projects.remember(store, project_id, state="attached", problem="", title=info.title)


def detach_project(services: Services, project_id: int) -> bool:
    """Give the project back as it was before it was attached; only versions of ours are deleted.

    Returns
    -------
    bool
        False where the project of this number is another's by now: that is left alone, and ours forgotten.
    """
    with _alone(services, f"attach {project_id}"), _alone(services, f"round {project_id}"):
        projects.get(services.store, project_id)
        try:
            origin.confirm(services, project_id)
        except ProjectOfAnother:
            projects.remember(services.store, project_id, round_requested="", version="", problem="", **DETACHED)
            return False
        _detach(services, project_id)
        return True


def _detach(services: Services, project_id: int) -> None:
    store, client = services.store, services.label_studio
    project = projects.get(store, project_id)
    # First of all: the worker must not publish into a project that is being given back. Deleting the connection
    # makes Label Studio call /setup once more, which leaves a project in this state alone.
    projects.remember(store, project_id, state="detaching", round_requested="", version="")
    client.write_field(project_id, sorted(tasks.with_reason(store, project_id)), REASON_KEY, "")
    tasks.set_reason(store, project_id, tasks.with_reason(store, project_id), "")
    withdraw_opinions(services, project_id)
    project_setup.detach(
        client,
        project_id,
        services.settings.backend_url,
        project.original,
        our_versions(services, project_id),
        events_secret=notes.events_secret(store),
        former=attached_at(services, project_id),
    )
    notes.write(store, _address_note(project_id), {})
    projects.remember(store, project_id, **DETACHED)


def attached_at(services: Services, project_id: int) -> str:
    """The address of this backend at the last attach; empty where that was not noted."""
    return str(notes.read(services.store, _address_note(project_id)).get("url", ""))


def _address_note(project_id: int) -> str:
    return f"attached at {project_id}"


def our_versions(services: Services, project_id: int) -> set[str]:
    """Every version name a round of this store used, and those of answers on demand."""
    published = {r.version for r in rounds.names(services.store, project_id)}
    return published | {live_version(version) for version in published} | {live_version("")}
