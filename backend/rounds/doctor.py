"""Is everything as it must be? For `mmal doctor`: what is wrong, in words, with the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from backend.errors import (
    ConfigurationError,
    LabelStudioError,
    MmalError,
    ProjectOfAnother,
    QueueAddressInvalid,
    QueueUnreachable,
    StoreError,
)
from backend.labelstudio.project_check import Finding, check_project
from backend.rounds import origin
from backend.rounds.connecting import attached_at
from backend.rounds.job_queue import in_words, open_queue
from backend.rounds.messages import JsonSerializer
from backend.rounds.services import Services, options_of
from backend.rounds.status import describe_age, describe_wait, project_status
from backend.settings import without_credentials
from backend.store import faults, notes, projects
from backend.store.tables import Project

# A worker that lives looks at every project this many polls long, at the latest.
MISSED_POLLS = 6
# Less than this and the next vectors, or the store's next pages, find no room.
LEAST_FREE_BYTES = 20_000_000


def examine(services: Services, project_id: int | None = None) -> list[Finding]:
    """All findings, of one project or of all; never raises for what is wrong with a project."""
    found = [_encoder(services), _store(services), *_job_queue(services), _disk(services)]
    try:
        _ = services.label_studio
    except ConfigurationError as error:
        return [*found, Finding(False, "LABEL_STUDIO_API_KEY", "not set", str(error))]
    wanted = [projects.get(services.store, project_id)] if project_id else projects.every(services.store)
    if not wanted:
        found.append(
            Finding(False, "projects", "none is connected", "Run `mmal project attach --project N` or connect one in "
                    "Label Studio under Settings > Model")
        )  # fmt: skip
    for project in wanted:
        for finding in _project(services, project):
            found.append(Finding(finding.ok, f"project {project.id}: {finding.name}", finding.detail, finding.remedy))
    return found


def _encoder(services: Services) -> Finding:
    try:
        return Finding(True, "encoder", services.encoder_id)
    except MmalError as error:
        return Finding(False, "encoder", services.settings.encoder, str(error))


def _store(services: Services) -> Finding:
    try:
        faults.check(services.store.engine)
        return Finding(True, "store", str(services.store.engine.url))
    except StoreError as error:
        return Finding(False, "store", "damaged", str(error))


def _job_queue(services: Services) -> Iterator[Finding]:
    """Only where it is a server that workers share: a file is the worker's own affair."""
    if not services.settings.queue_url:
        return
    shown = without_credentials(services.settings.queue_url)
    try:
        with in_words(services.settings):
            waiting = open_queue(services, JsonSerializer()).storage.queue_size()
        yield Finding(True, "job queue", f"{shown}, {waiting} jobs waiting")
    except (QueueUnreachable, QueueAddressInvalid) as error:
        yield Finding(False, "job queue", shown, str(error))


def _disk(services: Services) -> Finding:
    # A full disk takes no note of its own, so status cannot tell; this looks at the disk itself.
    folder = services.settings.data_dir
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e6:.0f} MB free for MMAL_DATA_DIR"
    if free >= LEAST_FREE_BYTES:
        return Finding(True, "disk", detail)
    remedy = f"Free some, or move the folder {folder} to a larger disk; the work then goes on by itself"
    return Finding(False, "disk", detail, remedy)


def _project(services: Services, project: Project) -> Iterator[Finding]:
    if project.state in ("detached", "detaching"):
        yield Finding(True, "state", "detached: given back to Label Studio")
        return
    if project.state == "refused":
        yield Finding(False, "state", project.problem, f"mmal project attach --project {project.id} --take-over")
        return
    try:
        origin.compare(services, services.label_studio.project(project.id))
    except ProjectOfAnother as error:
        yield Finding(False, "Label Studio", "another than the one this project was attached in", str(error))
        return
    except LabelStudioError:
        pass  # check_project says so
    if project.problem:
        yield Finding(False, "label config", project.problem, "Change it in Label Studio under Labeling Interface")
    yield from check_project(
        services.label_studio,
        project.id,
        services.settings.backend_url,
        version=project.version or None,
        events_secret=notes.events_secret(services.store),
        former=attached_at(services, project.id),
        prefill=options_of(project).prelabel,
    )
    yield from _loop(services, project)


def _loop(services: Services, project: Project) -> Iterator[Finding]:
    status = project_status(services, project)
    late = services.store.clock() - project.synced_at > MISSED_POLLS * options_of(project).poll_seconds
    yield Finding(
        not late,
        "worker",
        f"last look at Label Studio {describe_age(project.synced_at)}",
        "Start it: `mmal serve`, or `mmal worker` beside `mmal web`" if late else "",
    )
    if status.last_error:
        yield Finding(False, "last error", status.last_error, "It is tried again by itself; see the worker's log")
    if status.encoder_failing:
        yield Finding(
            False,
            "embedding",
            f"nothing is embedded: {status.encoder_failing}",
            f"It is tried again {describe_wait(status.encoder_tried_again_at)}, by itself, with the encoder"
            " loaded anew. See MMAL_ENCODER and MMAL_DEVICE; where CUDA itself has failed, restart the worker",
        )
    if status.images_deferred:
        yield Finding(
            False,
            "images for now",
            f"{status.images_deferred} cannot be had: {status.images_deferred_why}",
            f"They are tried again {describe_wait(status.images_tried_again_at)}, by themselves, and join in when"
            " their host answers; till then their tasks are chosen by their text, or wait",
        )
    yield Finding(
        status.unreadable_media == 0,
        "media",
        f"{status.unreadable_media} tasks have an image or text that cannot be read",
        "The tasks are chosen by what is left of them; `mmal embed problems` lists why"
        if status.unreadable_media
        else "",
    )
    if project.version and status.queue_remaining == 0 and status.pool:
        yield Finding(
            False, "queue", "used up: Label Studio serves at random", "A round is due; is the worker running?"
        )
