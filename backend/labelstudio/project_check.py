"""Is a project still set up as it must be? One finding for each thing that can silently break the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backend.errors import LabelStudioError
from backend.labelstudio import project_setup
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.own_addresses import is_at, own_addresses
from backend.labelstudio.records import ProjectInfo


@dataclass(frozen=True)
class Finding:
    """`remedy` says what to do when not `ok`, and is empty otherwise."""

    ok: bool
    name: str
    detail: str
    remedy: str = ""


def check_project(
    client: LabelStudio,
    project_id: int,
    backend_url: str,
    *,
    version: str | None,
    events_secret: str | None = None,
    former: str = "",
    prefill: bool = False,
) -> list[Finding]:
    """Look at the token, the project, the queue and the connections.

    Parameters
    ----------
    version : the version that should be in force; None before the first queue
    events_secret : to see whether the webhook carries it; None to leave that out
    former : address of the last attach, as far as it is known
    prefill : the project pre-fills answers, for which Label Studio must show predictions

    Never raises for what Label Studio answers: a refusal is a finding, and ends the list when nothing more
    can be asked.
    """
    found: list[Finding] = []
    try:
        user = client.whoami()
        found.append(Finding(True, "token", f"{client.http.kind} token of {user.get('email')}"))
        project = client.project(project_id)
        found.append(Finding(True, "project", f"{project.title}: {project.task_number} tasks"))
        found += _ordering(client, project, version)
        if prefill:
            found.append(_prefill(project))
        found += _events(client, project_id, backend_url, events_secret)
        found += _connection(client, project_id, backend_url)
        found += _elsewhere(client, project_id, backend_url, events_secret or "", former)
    except LabelStudioError as error:
        found.append(Finding(False, "token" if not found else "Label Studio", str(error), "See the message"))
    return found


def _attach(project_id: int) -> str:
    return f"mmal project attach --project {project_id}"


def _ordering(client: LabelStudio, project: ProjectInfo, version: str | None) -> Iterator[Finding]:
    sampling = project.sampling == project_setup.SAMPLING
    yield Finding(
        sampling,
        "sampling",
        f"task sampling is {project.sampling}",
        "" if sampling else f"Run `{_attach(project.id)}` again, it sets Uncertainty sampling",
    )
    in_force = project.model_version == version
    yield Finding(
        in_force,
        "version in force",
        f"{project.model_version or 'none'}, {'as' if in_force else 'not'} published ({version or 'none'})",
        "" if in_force else "The worker puts it right at its next look; is `mmal worker` running?",
    )
    if version is not None:
        left = client.queue_left(project.id)
        yield Finding(
            left > 0,
            "queue",
            f"{left} published tasks are not labelled yet",
            "" if left else "The queue is empty, so Label Studio serves at random: start a round",
        )
    if project.maximum_annotations > 1:
        yield Finding(
            True,
            "annotations per task",
            f"{project.maximum_annotations}: Label Studio first serves tasks that others began, in random order",
        )


def _prefill(project: ProjectInfo) -> Finding:
    shown = project.show_collab_predictions
    return Finding(
        shown,
        "pre-filled answers",
        f"the project {'shows' if shown else 'does not show'} predictions to annotators",
        "" if shown else "The next round switches this on; or switch pre-filling off with the option prelabel=false",
    )


def _events(client: LabelStudio, project_id: int, backend_url: str, events_secret: str | None) -> Iterator[Finding]:
    hook = project_setup.events_webhook(client, project_id, backend_url)
    again = f"Run `{_attach(project_id)}` again; until then changes are only noticed by polling"
    if hook is None:
        yield Finding(False, "webhook", f"no webhook sends events to {backend_url}/events", again)
    elif not project_setup.sends_all_events(hook):
        missing = sorted(set(project_setup.EVENTS) - set(hook.actions))
        off = "it is switched off" if not hook.is_active else f"it does not send {', '.join(missing)}"
        yield Finding(False, "webhook", f"webhook {hook.id}: {off}", again)
    elif events_secret is not None and hook.headers.get("Authorization") != f"Bearer {events_secret}":
        yield Finding(False, "webhook", f"webhook {hook.id} does not carry this backend's secret", again)
    else:
        yield Finding(True, "webhook", f"webhook {hook.id} sends all events to {hook.url}")
    url = f"{backend_url.rstrip('/')}/webhook"
    automatic = [h.id for h in client.webhooks(project_id) if h.url.rstrip("/") == url]
    yield Finding(
        not automatic,
        "automatic webhook",
        f"webhook {automatic[0]} sends every event a second time" if automatic else "none",
        f"Run `{_attach(project_id)}` again, it removes it (connecting the backend makes it anew)"
        if automatic
        else "",
    )


def _connection(client: LabelStudio, project_id: int, backend_url: str) -> Iterator[Finding]:
    backend = project_setup.connection(client, project_id, backend_url)
    if backend is None:
        yield Finding(
            False,
            "connection",
            f"no model of the project has the address {backend_url}",
            f"Run `{_attach(project_id)}`",
        )
        return
    connected = backend.state == "CO"
    yield Finding(
        connected,
        "connection",
        f"'{backend.title}' at {backend.url}: {'connected' if connected else backend.error_message or backend.state}",
        "" if connected else "Is `mmal web` running and reachable from Label Studio? See MMAL_PUBLIC_URL",
    )
    readable = backend.options is not None
    yield Finding(
        readable,
        "options",
        f"extra parameters {backend.extra_params!r}" if backend.extra_params else "no extra parameters",
        "" if readable else 'They are not JSON: write for example {"strategy": "bmmal"}',
    )
    if backend.title in client.model_versions(project_id):
        yield Finding(
            False,
            "connection's title",
            f"predictions carry the connection's title {backend.title!r} as their version",
            "Rename the connection in the project's model settings",
        )


def _elsewhere(client: LabelStudio, project_id: int, backend_url: str, secret: str, former: str) -> Iterator[Finding]:
    """What is left at an address from before, and what may be this backend by another name."""
    hooks = client.webhooks(project_id)
    left = own_addresses(hooks, backend_url, secret, former)[1:]
    again = f"Run `{_attach(project_id)}` again, it moves what is ours to {backend_url}"
    for hook in hooks:
        if is_at(hook.url, left, "/events"):
            yield Finding(False, "webhook elsewhere", f"webhook {hook.id} sends every event to {hook.url}", again)
    for backend in client.ml_backends(project_id):
        if is_at(backend.url, left):
            yield Finding(False, "connection elsewhere", f"'{backend.title}' is connected at {backend.url}", again)
        elif backend.title == project_setup.BACKEND_TITLE and not is_at(backend.url, [backend_url]):
            yield Finding(
                False,
                "connection elsewhere",
                f"another model is called {backend.title!r}, at {backend.url}",
                "Delete one of the two in the project's model settings; where that address is this backend's as well,"
                " set MMAL_PUBLIC_URL to the one that stays",
            )
