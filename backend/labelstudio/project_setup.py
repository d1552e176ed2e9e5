"""Setting a project up for active learning, giving it back, and telling whether it still is set up."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import ForeignPredictions, LabelStudioError, LabelStudioRefused
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.own_addresses import is_at, own_addresses
from backend.labelstudio.queue_tab import add_queue_tab, remove_queue_tab
from backend.labelstudio.records import MLBackend, Webhook

log = logging.getLogger(__name__)

SAMPLING = "Uncertainty sampling"
"""Label Studio's name for: lowest prediction score of the version in force first."""

BACKEND_TITLE = "mmal"
"""Title of the connection. Never the name of a version: then Label Studio would mix the two up."""

EVENTS = (
    "TASKS_CREATED",
    "TASKS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "PROJECT_UPDATED",
)


@dataclass(frozen=True)
class Attachment:
    """Ids of what attaching made or found, and in words what it had to change (empty: all was in place)."""

    webhook_id: int
    backend_id: int
    changes: tuple[str, ...]


def read_original(client: LabelStudio, project_id: int) -> dict[str, Any]:
    """What `detach` gives back, as JSON. Read it before the first `attach`."""
    project = client.project(project_id)
    return {
        "sampling": project.sampling,
        "model_version": project.model_version,
        "show_collab_predictions": project.show_collab_predictions,
        "views": [int(view["id"]) for view in client.views(project_id)],
    }


def foreign_predictions(client: LabelStudio, project_id: int, our_versions: Collection[str]) -> dict[str, int]:
    """Versions in the project that are not ours, with their number of predictions."""
    versions = client.model_versions(project_id)
    return {version: count for version, count in versions.items() if version not in our_versions}


def refuse_foreign_predictions(client: LabelStudio, project_id: int, our_versions: Collection[str]) -> None:
    """Raise ForeignPredictions when another system's predictions order or pre-fill this project's tasks."""
    foreign = foreign_predictions(client, project_id, our_versions)
    if foreign:
        listed = ", ".join(f"{version} ({count})" for version, count in sorted(foreign.items())[:5])
        raise ForeignPredictions(
            f"Project {project_id} holds predictions of other systems: {listed}. Attaching would set their"
            " version aside (none is deleted); attach with take-over to go ahead"
        )


def attach(
    client: LabelStudio,
    project_id: int,
    backend_url: str,
    events_secret: str,
    *,
    options: Mapping[str, Any] | None = None,
    basic_auth: tuple[str, str] | None = None,
    former: str = "",
) -> Attachment:
    """Sampling, our webhook, the connection, the queue tab. Safe to repeat; changes only what is not in place.

    Where this backend had another address before, its webhook and connection are moved, not made a second time.

    Parameters
    ----------
    backend_url : address at which Label Studio reaches this backend
    events_secret : sent back with every event as `Authorization: Bearer <secret>`
    options : written to the connection's extra parameters when they differ; None leaves them alone
    basic_auth : user and password of this backend; None when it asks for none
    former : the address of the last attach, as far as it is known

    Raises
    ------
    LabelStudioError
        With what Label Studio refused and, for addresses it may not or cannot reach, the remedy.
    """
    changes: list[str] = []
    if client.project(project_id).sampling != SAMPLING:
        client.update_project(project_id, sampling=SAMPLING)
        changes.append(f"sampling set to {SAMPLING}")
    own = own_addresses(client.webhooks(project_id), backend_url, events_secret, former)
    try:
        webhook = _events_webhook(client, project_id, own, events_secret, changes)
        backend = _connection(client, project_id, own, options, basic_auth, changes)
    except LabelStudioRefused as refused:
        raise _with_remedy(refused, backend_url) from refused
    if client.project(project_id).model_version == backend.title:
        # Connecting puts the title in force. Label Studio then calls /predict for every task that it serves,
        # and serves at random; with none in force it only does the latter, until the first queue.
        client.set_model_version(project_id, None)
        changes.append("connection's title no longer in force as a version")
    if remove_automatic_webhook(client, project_id, *own):
        changes.append("automatic webhook removed")
    if add_queue_tab(client, project_id):
        changes.append("queue tab added")
    for change in changes:
        log.info("project %s: %s", project_id, change)
    return Attachment(webhook.id, backend.id, tuple(changes))


def remove_automatic_webhook(client: LabelStudio, project_id: int, *addresses: str) -> int:
    """Delete the webhook that Label Studio makes whenever the backend is connected; returns how many there were.

    It carries no authorization, so a backend with a password refuses it, and it repeats our own webhook.
    """
    automatic = [hook for hook in client.webhooks(project_id) if is_at(hook.url, addresses, "/webhook")]
    for hook in automatic:
        client.delete_webhook(hook.id)
    return len(automatic)


def show_predictions(client: LabelStudio, project_id: int) -> None:
    """Have Label Studio fill the form with predictions; `detach` gives the setting back."""
    if not client.project(project_id).show_collab_predictions:
        client.update_project(project_id, show_collab_predictions=True)
        log.info("project %s: predictions are shown to annotators, as its option prelabel asks", project_id)


def detach(
    client: LabelStudio,
    project_id: int,
    backend_url: str,
    original: Mapping[str, Any],
    our_versions: Collection[str],
    *,
    events_secret: str = "",
    former: str = "",
) -> None:
    """Give the project back as `read_original` found it. Deletes only what is ours; safe to repeat.

    Ours is what `attach` would move, too: whatever carries the secret, or has the address of the last attach.

    The reason field is not touched here: clear it before with `client.write_field`.
    """
    hooks = client.webhooks(project_id)
    own = own_addresses(hooks, backend_url, events_secret, former)
    for hook in hooks:
        if is_at(hook.url, own, "/events"):
            client.delete_webhook(hook.id)
    for backend in client.ml_backends(project_id):
        if is_at(backend.url, own):
            client.delete_backend(backend.id)
    remove_automatic_webhook(client, project_id, *own)
    if original:
        remove_queue_tab(client, project_id, keep=original.get("views") or ())
    present = client.model_versions(project_id)
    if original:
        before = original.get("model_version")
        client.update_project(
            project_id,
            sampling=original.get("sampling") or "Sequential sampling",
            show_collab_predictions=bool(original.get("show_collab_predictions", True)),
            # A version that is gone, or was the connection's title, cannot be put in force again.
            model_version=before if before in present and before not in our_versions else "",
        )
    for version in present:
        if version in our_versions:
            client.delete_model_version(project_id, version)


def events_webhook(client: LabelStudio, project_id: int, backend_url: str) -> Webhook | None:
    """Our webhook, or None."""
    return next((hook for hook in client.webhooks(project_id) if is_at(hook.url, [backend_url], "/events")), None)


def connection(client: LabelStudio, project_id: int, backend_url: str) -> MLBackend | None:
    """The connection to this backend, or None. Label Studio calls /health and /setup before it answers."""
    return next((b for b in client.ml_backends(project_id) if is_at(b.url, [backend_url])), None)


def _events_webhook(
    client: LabelStudio, project_id: int, own: Sequence[str], secret: str, changes: list[str]
) -> Webhook:
    headers, url = {"Authorization": f"Bearer {secret}"}, f"{own[0]}/events"
    hooks = [hook for hook in client.webhooks(project_id) if is_at(hook.url, own, "/events")]
    if not hooks:
        changes.append("webhook for events made")
        return client.create_webhook(project_id, url, EVENTS, headers)
    hook, *further = sorted(hooks, key=lambda hook: not is_at(hook.url, [url]))
    for double in further:
        client.delete_webhook(double.id)
        changes.append(f"webhook to {double.url} removed")
    if not is_at(hook.url, [url]):
        changes.append(f"webhook for events moved from {hook.url}")
        return client.update_webhook(hook, url=url, actions=EVENTS, headers=headers, is_active=True)
    if sends_all_events(hook) and hook.headers == headers:
        return hook
    changes.append("webhook for events put right")
    return client.update_webhook(hook, actions=EVENTS, headers=headers, is_active=True)


def sends_all_events(hook: Webhook) -> bool:
    """The webhook is on and sends every event this backend listens to, with its payload."""
    complete = hook.send_for_all_actions or set(EVENTS) <= set(hook.actions)
    return complete and hook.is_active and hook.send_payload


def _connection(
    client: LabelStudio,
    project_id: int,
    own: Sequence[str],
    options: Mapping[str, Any] | None,
    auth: tuple[str, str] | None,
    changes: list[str],
) -> MLBackend:
    connections = [backend for backend in client.ml_backends(project_id) if is_at(backend.url, own)]
    if not connections:
        changes.append("backend connected")
        return client.connect_backend(project_id, own[0], BACKEND_TITLE, options, auth)
    backend, *further = sorted(connections, key=lambda backend: not is_at(backend.url, own[:1]))
    for double in further:
        client.delete_backend(double.id)
        changes.append(f"connection to {double.url} removed")
    if not is_at(backend.url, own[:1]):
        changes.append(f"connection moved from {backend.url}")
        return client.update_backend(backend, url=own[0], options=options, basic_auth=auth)
    # Label Studio never shows the stored password, so only the user name can be compared.
    other_user = auth is not None and backend.basic_auth_user != auth[0]
    if (options is not None and backend.options != dict(options)) or other_user:
        changes.append("connection's options brought up to date")
        return client.update_backend(backend, options=options, basic_auth=auth)
    return backend


def _with_remedy(refused: LabelStudioRefused, backend_url: str) -> LabelStudioError:
    if "reserved network address" in refused.detail:
        remedy = (
            f"Label Studio may not call {backend_url} because it is a private address: start Label Studio with the"
            " environment that `mmal allow ADDRESS` prints, or give this backend a public address"
        )
    elif "health check failed" in refused.detail:
        remedy = (
            f"Label Studio does not reach this backend at {backend_url}: set MMAL_PUBLIC_URL to its address as"
            " Label Studio's machine or container sees it"
        )
    elif "authentication" in refused.detail.lower():
        remedy = "BASIC_AUTH_USER and BASIC_AUTH_PASS here and in the project's model settings must be the same"
    else:
        return refused
    return LabelStudioRefused(f"{remedy}. ({refused})", status=refused.status, detail=refused.detail)
