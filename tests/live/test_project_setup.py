"""Attaching a project, giving it back, and what Label Studio does with connections and webhooks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from backend.errors import ForeignPredictions, LabelStudioRefused
from backend.labelstudio import project_setup
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import free_port
from backend.labelstudio.predictions import queue_row
from backend.labelstudio.project_check import check_project
from backend.labelstudio.project_setup import EVENTS, SAMPLING, attach, detach, read_original
from backend.labelstudio.records import ProjectInfo
from backend.labelstudio.schema import TaskSchema

from .conftest import CONFIG, MakeProject
from .recording_backend import RecordingBackend

pytestmark = pytest.mark.live

SCHEMA = TaskSchema.from_label_config(CONFIG)
SECRET = "s3cret"
OPTIONS = {"strategy": "margin", "batch_size": 20}


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with RecordingBackend() as recording:
        yield recording


@pytest.fixture
def project(make_project: MakeProject) -> ProjectInfo:
    return make_project(6)


def publish(client: LabelStudio, project: ProjectInfo, version: str) -> list[int]:
    ids = sorted(client.task_ids(project.id))
    rows = [queue_row(task, rank, len(ids), version, SCHEMA) for rank, task in enumerate(ids)]
    client.import_predictions(project.id, rows)
    client.set_model_version(project.id, version)
    return ids


def problems(client: LabelStudio, project: ProjectInfo, url: str, version: str | None) -> list[str]:
    findings = check_project(client, project.id, url, version=version, events_secret=SECRET)
    assert all(finding.remedy for finding in findings if not finding.ok)
    return [finding.name for finding in findings if not finding.ok]


def test_attach_sets_everything_up_and_changes_nothing_the_second_time(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    first = attach(client, project.id, backend.url, SECRET, options=OPTIONS)
    assert first.changes
    publish(client, project, "v1-test")
    assert problems(client, project, backend.url, "v1-test") == []
    assert client.project(project.id).sampling == SAMPLING
    assert [hook.url for hook in client.webhooks(project.id)] == [f"{backend.url}/events"]
    assert [view["data"]["title"] for view in client.views(project.id)] == ["Default", "Queue"]
    again = attach(client, project.id, backend.url, SECRET, options=OPTIONS)
    assert again.changes == ()
    assert (again.backend_id, again.webhook_id) == (first.backend_id, first.webhook_id)


def test_setup_receives_the_options_as_text(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET, options=OPTIONS)
    sent = [r.body["extra_params"] for r in backend.received if r.path == "/setup"]
    assert sent and all(isinstance(text, str) and json.loads(text) == OPTIONS for text in sent)


def test_queue_tab_shows_what_is_published_in_its_order(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET)
    ids = publish(client, project, "v1-test")
    (tab,) = (view for view in client.views(project.id) if view["data"]["title"] == "Queue")
    client.submit(ids[0], SCHEMA, ["cat"])
    shown = client.http.request("GET", "/api/tasks/", params={"view": tab["id"], "fields": "task_only"})
    assert [task["id"] for task in shown["tasks"]] == ids[1:]


def test_events_arrive_with_the_secret(client: LabelStudio, project: ProjectInfo, backend: RecordingBackend) -> None:
    attach(client, project.id, backend.url, SECRET)
    ids = sorted(client.task_ids(project.id))
    annotation = client.submit(ids[0], SCHEMA, ["cat"])
    client.update_annotation(annotation["id"], lead_time=1.0)
    client.delete_annotation(annotation["id"])
    client.submit(ids[1], SCHEMA, ["cat"])
    client.delete_annotations_of(project.id, ids)
    client.import_tasks(project.id, [{"image": "/x.png", "text": "new"}])
    client.delete_tasks(project.id, ids[:1])
    client.update_project(project.id, description="changed")
    expected = [
        "ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "ANNOTATION_CREATED",
        "ANNOTATIONS_DELETED", "TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED",
    ]  # fmt: skip
    assert backend.wait_for(lambda: len(backend.events()) >= len(expected))
    assert [event for event in backend.events() if event != "PROJECT_UPDATED"] == expected[:-1]
    assert "PROJECT_UPDATED" in backend.events()
    events = [r for r in backend.received if r.path == "/events"]
    assert {r.headers.get("Authorization") for r in events} == {f"Bearer {SECRET}"}


def test_automatic_webhook_comes_back_on_reconnecting_and_is_found_and_removed(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET)
    made = project_setup.connection(client, project.id, backend.url)
    assert made is not None
    client.delete_backend(made.id)
    client.connect_backend(project.id, backend.url, "mmal")
    assert problems(client, project, backend.url, None) == ["version in force", "automatic webhook"]
    assert project_setup.remove_automatic_webhook(client, project.id, backend.url) == 1
    assert problems(client, project, backend.url, None) == ["version in force"]
    assert [hook.url for hook in client.webhooks(project.id)] == [f"{backend.url}/events"]


@pytest.fixture
def moved() -> Iterator[RecordingBackend]:
    with RecordingBackend() as recording:
        yield recording


def test_a_backend_that_moved_takes_its_webhook_and_connection_along(
    client: LabelStudio, project: ProjectInfo, moved: RecordingBackend
) -> None:
    with RecordingBackend() as gone:
        first = attach(client, project.id, gone.url, SECRET, options=OPTIONS)
    publish(client, project, "v1-test")
    strange = client.create_webhook(project.id, f"{gone.url}/others", EVENTS, {"Authorization": "Bearer x"})
    found = problems(client, project, moved.url, "v1-test")
    assert found == ["webhook", "connection", "webhook elsewhere", "connection elsewhere"]
    second = attach(client, project.id, moved.url, SECRET, options=OPTIONS)
    assert (second.webhook_id, second.backend_id) == (first.webhook_id, first.backend_id)
    assert problems(client, project, moved.url, "v1-test") == []
    assert {hook.url for hook in client.webhooks(project.id)} == {f"{moved.url}/events", strange.url}
    assert [b.url for b in client.ml_backends(project.id)] == [moved.url]
    assert client.project(project.id).model_version == "v1-test"
    client.submit(min(client.task_ids(project.id)), SCHEMA, ["cat"])
    assert moved.wait_for(lambda: "ANNOTATION_CREATED" in moved.events())


@pytest.mark.parametrize("known_by", ["the secret", "the address of the last attach"])
def test_what_an_older_version_left_behind_at_an_address_is_removed(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend, moved: RecordingBackend, known_by: str
) -> None:
    carried = SECRET if known_by == "the secret" else "that of another store"
    former = "" if known_by == "the secret" else backend.url
    original = read_original(client, project.id)

    def leave_behind() -> None:
        client.create_webhook(project.id, f"{backend.url}/events", EVENTS, {"Authorization": f"Bearer {carried}"})
        client.connect_backend(project.id, backend.url, "mmal")

    attach(client, project.id, moved.url, SECRET)
    leave_behind()
    attach(client, project.id, moved.url, SECRET, former=former)
    assert [b.url for b in client.ml_backends(project.id)] == [moved.url]
    assert [hook.url for hook in client.webhooks(project.id)] == [f"{moved.url}/events"]
    leave_behind()
    detach(client, project.id, moved.url, original, {"v1-test"}, events_secret=SECRET, former=former)
    assert client.ml_backends(project.id) == []
    assert client.webhooks(project.id) == []


def test_webhook_update_without_actions_would_empty_them_so_all_is_sent(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    hook = client.create_webhook(project.id, f"{backend.url}/events", EVENTS, {"Authorization": "Bearer a"})
    client.http.request("PATCH", f"/api/webhooks/{hook.id}/", body={"url": hook.url})
    (emptied,) = client.webhooks(project.id)
    assert emptied.actions == () and emptied.headers == {"Authorization": "Bearer a"}
    attach(client, project.id, backend.url, SECRET)
    (repaired,) = client.webhooks(project.id)
    assert repaired.id == hook.id and set(repaired.actions) == set(EVENTS)
    client.update_webhook(repaired, headers={"Authorization": "Bearer b"})
    (kept,) = client.webhooks(project.id)
    assert set(kept.actions) == set(EVENTS) and kept.headers == {"Authorization": "Bearer b"}


def test_detach_gives_the_project_back(client: LabelStudio, project: ProjectInfo, backend: RecordingBackend) -> None:
    client.import_predictions(
        project.id, [queue_row(task, 0, 1, "theirs", SCHEMA, "cat") for task in client.task_ids(project.id)]
    )
    client.set_model_version(project.id, "theirs")
    client.create_webhook(project.id, "http://127.0.0.1:9/theirs", EVENTS)
    client.create_view(project.id, {"title": "Mine", "type": "list", "target": "tasks"})
    before = client.project(project.id)
    views = client.views(project.id)
    original = json.loads(json.dumps(read_original(client, project.id)))
    attach(client, project.id, backend.url, SECRET)
    publish(client, project, "v1-test")
    detach(client, project.id, backend.url, original, {"v1-test", "v0-live"})
    after = client.project(project.id)
    assert (after.sampling, after.model_version) == (before.sampling, "theirs")
    assert client.model_versions(project.id) == {"theirs": 6}
    assert [hook.url for hook in client.webhooks(project.id)] == ["http://127.0.0.1:9/theirs"]
    assert client.views(project.id) == views
    assert client.ml_backends(project.id) == []
    detach(client, project.id, backend.url, original, {"v1-test", "v0-live"})
    assert client.project(project.id) == after


def test_predictions_of_others_are_named_and_not_deleted(client: LabelStudio, project: ProjectInfo) -> None:
    publish(client, project, "yolo-3")
    with pytest.raises(ForeignPredictions, match=r"yolo-3 \(6\)"):
        project_setup.refuse_foreign_predictions(client, project.id, {"v1-test"})
    project_setup.refuse_foreign_predictions(client, project.id, {"yolo-3"})
    assert client.model_versions(project.id) == {"yolo-3": 6}


def test_unreachable_backend_is_refused_with_the_setting_that_helps(
    client: LabelStudio, project: ProjectInfo
) -> None:
    with pytest.raises(LabelStudioRefused, match="MMAL_PUBLIC_URL"):
        attach(client, project.id, f"http://127.0.0.1:{free_port()}", SECRET)


def test_setup_refusal_is_shown_by_its_reason_phrase(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    words = "Unknown strategy 'bold'. Use one of: entropy, margin"
    connected = client.connect_backend(project.id, backend.url, "mmal", {})
    backend.setup_answer = lambda body: (
        (400, words, {"never": "shown"}) if "bold" in str(body["extra_params"]) else (200, "OK", {})
    )
    with pytest.raises(LabelStudioRefused) as refused:
        client.update_backend(connected, options={"strategy": "bold"})
    assert words in refused.value.detail and "never" not in refused.value.detail
    (kept,) = client.ml_backends(project.id)
    assert kept.options == {} and kept.state == "CO"


def test_stored_options_that_setup_refuses_do_not_block_their_correction(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    connected = client.connect_backend(project.id, backend.url, "mmal", {"strategy": "removed"})
    backend.setup_answer = lambda body: (
        (400, "no longer known", {}) if "removed" in str(body["extra_params"]) else (200, "OK", {})
    )
    (broken,) = client.ml_backends(project.id)
    assert broken.state == "ER" and "no longer known" in str(broken.error_message)
    corrected = client.update_backend(connected, options={"strategy": "margin"})
    assert corrected.options == {"strategy": "margin"}
    (mended,) = client.ml_backends(project.id)
    assert (mended.state, mended.options) == ("CO", {"strategy": "margin"})


@pytest.mark.parametrize("junk", ["strategy=margin (not json)", "[object Object]", '"a string"', "[1]"])
def test_junk_options_are_stored_unchecked_so_they_are_found_here(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend, junk: str
) -> None:
    attachment = attach(client, project.id, backend.url, SECRET)
    body = {"project": project.id, "title": "mmal", "url": backend.url, "extra_params": junk}
    client.http.request("PATCH", f"/api/ml/{attachment.backend_id}", body=body)
    (stored,) = client.ml_backends(project.id)
    assert stored.extra_params == junk and stored.options is None
    assert "options" in problems(client, project, backend.url, None)
    attach(client, project.id, backend.url, SECRET, options=OPTIONS)
    (repaired,) = client.ml_backends(project.id)
    assert repaired.options == OPTIONS


def test_connecting_puts_the_title_in_force_and_attaching_takes_it_out(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    client.connect_backend(project.id, backend.url, "by hand")
    assert client.project(project.id).model_version == "by hand"
    project_setup.refuse_foreign_predictions(client, project.id, ())
    attach(client, project.id, backend.url, SECRET)
    assert client.project(project.id).model_version is None
    publish(client, project, "v1-test")
    assert client.project(project.id).model_version == "v1-test"
    attach(client, project.id, backend.url, SECRET)
    assert client.project(project.id).model_version == "v1-test"


def test_serving_a_published_queue_asks_the_backend_for_nothing(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET)
    ids = publish(client, project, "v1-test")
    backend.received.clear()
    task = client.next_task(project.id)
    assert task is not None and task.id == ids[0]
    assert [r.path for r in backend.received if r.path != "/events"] == []


def test_basic_auth_goes_with_every_call_but_the_events(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET, basic_auth=("user", "pass"))
    client.submit(min(client.task_ids(project.id)), SCHEMA, ["cat"])
    assert backend.wait_for(lambda: "ANNOTATION_CREATED" in backend.events())
    sent = {r.path: r.headers.get("Authorization", "") for r in backend.received}
    assert sent["/health"].startswith("Basic ") and sent["/setup"].startswith("Basic ")
    assert sent["/events"] == f"Bearer {SECRET}"


def test_a_change_of_options_leaves_the_password_to_label_studio(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attach(client, project.id, backend.url, SECRET, basic_auth=("user", "pass"))
    [first] = {r.headers.get("Authorization") for r in backend.received if r.path == "/setup"}
    backend.received.clear()
    [connection] = client.ml_backends(project.id)
    client.update_backend(connection, options={"strategy": "margin"})
    assert {r.headers.get("Authorization") for r in backend.received if r.path == "/setup"} == {first}
    [connection] = client.ml_backends(project.id)
    assert connection.options == {"strategy": "margin"}


def test_check_names_each_thing_that_was_changed_behind_our_back(
    client: LabelStudio, project: ProjectInfo, backend: RecordingBackend
) -> None:
    attachment = attach(client, project.id, backend.url, SECRET)
    ids = publish(client, project, "v1-test")
    client.update_project(project.id, sampling="Sequential sampling")
    hook = project_setup.events_webhook(client, project.id, backend.url)
    assert hook is not None
    client.update_webhook(hook, is_active=False)
    for task in ids:
        client.submit(task, SCHEMA, ["cat"])
    client.delete_backend(attachment.backend_id)
    assert problems(client, project, backend.url, "v2-test") == [
        "sampling", "version in force", "queue", "webhook", "connection",
    ]  # fmt: skip


def test_check_of_a_wrong_token_is_one_finding(client: LabelStudio, project: ProjectInfo) -> None:
    stranger = LabelStudio(client.url, "0" * 40)
    (finding,) = check_project(stranger, project.id, "http://127.0.0.1:9", version=None)
    assert (finding.ok, finding.name) == (False, "token")
    assert "LABEL_STUDIO_API_KEY" in finding.detail
