"""Reading and writing tasks: the facts about Label Studio's API that synchronisation relies on."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from backend.errors import LabelStudioRefused, LabelStudioUnreachable, ProjectNotFound, TokenRefused
from backend.labelstudio.annotations import read_answer, resolve_label
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio, free_port
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from tests.team_servers import ON_POSTGRESQL, shared_postgres

from .conftest import CONFIG, MakeProject

pytestmark = pytest.mark.live

SCHEMA = TaskSchema.from_label_config(CONFIG)
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


def test_both_kinds_of_token_are_accepted(label_studio: LocalLabelStudio) -> None:
    account = label_studio.add_annotator(f"token-{time.time_ns()}@localhost.local")
    legacy = LabelStudio(label_studio.url, account.token)
    personal = LabelStudio(label_studio.url, label_studio.personal_token(account))
    assert (legacy.http.kind, personal.http.kind) == ("legacy", "personal")
    assert legacy.whoami()["email"] == personal.whoami()["email"] == account.email
    assert legacy.authorization()["Authorization"].startswith("Token ")
    assert personal.authorization()["Authorization"].startswith("Bearer ")


def test_personal_token_survives_a_refused_access_token(label_studio: LocalLabelStudio) -> None:
    account = label_studio.add_annotator(f"expiry-{time.time_ns()}@localhost.local")
    client = LabelStudio(label_studio.url, label_studio.personal_token(account))
    good = client.authorization()["Authorization"]
    client.http._access = "ey.broken.token"  # as if it had expired ahead of its time
    assert client.whoami()["email"] == account.email
    assert client.authorization()["Authorization"] != "Bearer ey.broken.token"
    assert good.startswith("Bearer ")


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_wrong_token_names_the_variable_and_how_to_make_one(label_studio: LocalLabelStudio, kind: str) -> None:
    key = "0" * 40
    if kind == "personal":
        account = label_studio.add_annotator(f"wrong-{time.time_ns()}@localhost.local")
        header, payload, _ = label_studio.personal_token(account).split(".")
        key = f"{header}.{payload}.{'x' * 43}"
    with pytest.raises(TokenRefused, match=r"LABEL_STUDIO_API_KEY.*Personal Access Token"):
        LabelStudio(label_studio.url, key).whoami()


def test_no_server_is_told_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioUnreachable, match=url):
        LabelStudio(url, "0" * 40, attempts=2).whoami()


def test_unknown_project_has_its_own_error(client: LabelStudio) -> None:
    with pytest.raises(ProjectNotFound, match="999999"):
        client.project(999_999)
    with pytest.raises(ProjectNotFound):
        client.next_task(999_999)


def test_all_tasks_are_read_whatever_the_page_size(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(23)
    for size in (1, 7, 23, 500):
        snapshots = list(client.iter_tasks(project.id, page_size=size))
        assert [s.data["text"] for s in snapshots] == [f"text number {n}" for n in range(23)]
    assert client.task_ids(project.id) == {s.id for s in snapshots}
    assert all(s.annotations is None for s in snapshots)


def test_vanished_tasks_are_those_not_found_by_id(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(6)
    ids = sorted(client.task_ids(project.id))
    client.delete_tasks(project.id, ids[:2])
    assert set(client.tasks_by_id(project.id, [*ids, 10**9])) == set(ids[2:])
    assert client.tasks_by_id(project.id, []) == {}


def test_every_kind_of_change_is_read_once_as_it_is_now(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(8)
    ids = sorted(client.task_ids(project.id))
    created, edited, deleted, skipped, *untouched = ids
    to_edit = client.submit(edited, SCHEMA, ["cat"])
    to_delete = client.submit(deleted, SCHEMA, ["cat"])
    mark = max(s.updated_at for s in client.changed_tasks(project.id, LONG_AGO))
    client.submit(created, SCHEMA, ["dog"])
    client.update_annotation(to_edit["id"], result=[{**to_edit["result"][0], "value": {"choices": ["bird"]}}])
    client.delete_annotation(to_delete["id"])
    client.skip(skipped)
    changed = list(client.changed_tasks(project.id, mark))
    assert [s.id for s in changed] == [created, edited, deleted, skipped]
    labels = {
        s.id: resolve_label([read_answer(SCHEMA, a) for a in s.annotations or ()], SCHEMA.multi_label)
        for s in changed
    }
    assert labels[created].choices == ("dog",)
    assert labels[edited].choices == ("bird",)
    assert labels[deleted].kind == "none"
    assert labels[skipped].kind == "skipped"
    assert not set(untouched) & labels.keys()


def test_group_of_one_time_stamp_larger_than_a_page_is_read_whole(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(0)
    region = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
    ids = client.import_tasks(
        project.id,
        [{"data": {"image": "/x.png", "text": str(n)}, "annotations": [{"result": [region]}]} for n in range(30)],
    )
    mark = max(s.updated_at for s in client.changed_tasks(project.id, LONG_AGO))
    client.delete_annotations_of(project.id, ids)
    changed = list(client.changed_tasks(project.id, mark, page_size=4))
    # Label Studio stamps a bulk deletion with one time for all: paging by time alone would lose most of it.
    assert len({s.updated_at for s in changed}) == 1
    assert sorted(s.id for s in changed) == ids
    assert all(s.annotations == () for s in changed)


def test_task_that_changes_while_changes_are_read_is_not_lost(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(9)
    ids = sorted(client.task_ids(project.id))
    reading = client.changed_tasks(project.id, LONG_AGO, page_size=3)
    seen = {(first := next(reading)).id: first}
    client.submit(ids[1], SCHEMA, ["dog"])
    client.submit(ids[7], SCHEMA, ["cat"])
    for snapshot in reading:
        seen[snapshot.id] = snapshot
    assert sorted(seen) == ids
    assert len(seen[ids[1]].annotations or ()) == len(seen[ids[7]].annotations or ()) == 1


def test_annotated_tasks_are_those_with_an_answer_or_a_skip(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(7)
    ids = sorted(client.task_ids(project.id))
    client.submit(ids[0], SCHEMA, ["cat"])
    client.skip(ids[1])
    client.submit(ids[2], SCHEMA, ["cat"])
    client.skip(ids[2])
    assert sorted(s.id for s in client.annotated_tasks(project.id, page_size=1)) == ids[:3]
    assert client.project(project.id).skipped_annotations_number == 2


def test_answers_of_several_annotators_carry_their_ids(
    label_studio: LocalLabelStudio,
    client: LabelStudio,
    make_project: MakeProject,
    annotators: Callable[[int], list[Account]],
) -> None:
    project = make_project(1)
    (task_id,) = client.task_ids(project.id)
    for account, choice in zip(annotators(3), ("cat", "dog", "dog"), strict=True):
        label_studio.client(account).submit(task_id, SCHEMA, [choice])
    answers = [read_answer(SCHEMA, a) for a in client.task(task_id).annotations or ()]
    assert len({answer.annotator_id for answer in answers}) == 3
    assert resolve_label(answers, multi_label=False).choices == ("dog",)
    listed = next(iter(client.annotated_tasks(project.id))).annotations or ()
    assert {a["id"]: read_answer(SCHEMA, a) for a in listed} == {a.annotation_id: a for a in answers}


def test_imported_annotations_are_ground_truth_unless_told_otherwise(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(0)
    region = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
    silent, plain = client.import_tasks(
        project.id,
        [
            {"data": {"image": "/x.png", "text": "a"}, "annotations": [{"result": [region]}]},
            {"data": {"image": "/x.png", "text": "b"}, "annotations": [{"result": [region], "ground_truth": False}]},
        ],
    )
    truth = {
        s.id: read_answer(SCHEMA, (s.annotations or ())[0]).ground_truth for s in client.annotated_tasks(project.id)
    }
    assert truth == {silent: True, plain: False}


def test_setting_ground_truth_is_a_change(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(1)
    (task_id,) = client.task_ids(project.id)
    first = client.submit(task_id, SCHEMA, ["cat"])
    second = client.submit(task_id, SCHEMA, ["dog"])
    mark = client.task(task_id).updated_at
    client.update_annotation(first["id"], ground_truth=True)
    (changed,) = client.changed_tasks(project.id, mark)
    answers = [read_answer(SCHEMA, a) for a in changed.annotations or ()]
    assert {a.annotation_id: a.ground_truth for a in answers} == {first["id"]: True, second["id"]: False}
    resolution = resolve_label(answers, multi_label=False)
    assert (resolution.choices, resolution.from_ground_truth) == (("cat",), True)


def test_reason_field_is_written_and_cleared_beside_the_other_fields(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(5)
    before = client.tasks_by_id(project.id, client.task_ids(project.id))
    chosen = sorted(before)[:3]
    client.write_field(project.id, chosen, REASON_KEY, "The image and the text disagree")
    client.write_field(project.id, chosen[:1], REASON_KEY, "")
    after = client.tasks_by_id(project.id, before)
    assert {i: s.data.get(REASON_KEY) for i, s in after.items()} == {
        i: {0: "", 1: "The image and the text disagree", 2: "The image and the text disagree"}.get(n)
        for n, i in enumerate(sorted(before))
    }
    for task_id, snapshot in after.items():
        rest = {key: value for key, value in snapshot.data.items() if key != REASON_KEY}
        # Neither the data nor the clock of the task moved: no snapshot of ours becomes stale by it.
        assert replace(snapshot, data=rest) == before[task_id]


def test_reason_field_is_written_task_by_task_where_the_bulk_action_is_missing(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(3)
    ids = sorted(client.task_ids(project.id))
    with pytest.raises(LabelStudioRefused):  # how Label Studio answers an action that it does not know
        client._bulk_action(project.id, "no_such_action", ids)
    client._write_field_singly(project.id, ids[:2], REASON_KEY, "Rare")
    found = client.tasks_by_id(project.id, ids)
    assert [found[i].data for i in ids] == [
        {"image": f"/data/{n}.png", "text": f"text number {n}", **({REASON_KEY: "Rare"} if n < 2 else {})}
        for n in range(3)
    ]


def test_bulk_actions_on_no_tasks_touch_no_task(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(3)
    client.delete_tasks(project.id, [])
    client.write_field(project.id, [], REASON_KEY, "x")
    assert client.project(project.id).task_number == 3
    assert all(REASON_KEY not in s.data for s in client.iter_tasks(project.id))


def test_a_task_that_somebody_worked_on_is_not_deleted_as_untouched(
    client: LabelStudio, make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(8)
    answered, skipped, drafted, late, late_draft, first, second, _ = ids = sorted(client.task_ids(project.id))

    def draft(task_id: int) -> None:
        client.http.request("POST", f"/api/tasks/{task_id}/drafts", body={"result": [], "lead_time": 1.0})

    client.submit(answered, SCHEMA, ["cat"])
    client.skip(skipped)
    draft(drafted)
    look = client.tasks_with_annotations

    def look_and_be_overtaken(project_id: int, wanted: Iterable[int]) -> dict[int, TaskSnapshot]:
        found = look(project_id, wanted)
        client.submit(late, SCHEMA, ["dog"])
        draft(late_draft)
        return found

    monkeypatch.setattr(client, "tasks_with_annotations", look_and_be_overtaken)
    assert client.delete_untouched_tasks(project.id, ids[:-1]) == {first, second}
    assert client.task_ids(project.id) == set(ids) - {first, second}
    assert [len(s.annotations or ()) for s in look(project.id, [answered, skipped, late]).values()] == [1, 1, 1]


def test_a_skip_alone_leaves_the_task_unlabelled(client: LabelStudio, make_project: MakeProject) -> None:
    project = make_project(1)
    (task_id,) = client.task_ids(project.id)
    client.skip(task_id)
    raw = client.http.request("GET", f"/api/tasks/{task_id}/")
    assert (raw["is_labeled"], raw["total_annotations"], raw["cancelled_annotations"]) == (False, 0, 1)


def test_answers_in_use_can_be_taken_out_of_the_label_config_and_no_task_changes(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(1)
    (task_id,) = client.task_ids(project.id)
    client.submit(task_id, SCHEMA, ["bird"])
    mark = client.task(task_id).updated_at
    config = CONFIG.replace("bird", "fish")
    client.update_project(project.id, label_config=config)
    # So a new label config must be noticed by its hash, and all answers read again with it.
    assert list(client.changed_tasks(project.id, mark)) == []
    changed = TaskSchema.from_label_config(client.project(project.id).label_config)
    assert changed.config_hash != SCHEMA.config_hash
    (annotation,) = client.task(task_id).annotations or ()
    assert "'bird', which is not in the label config" in str(read_answer(changed, annotation).problem)


@contextlib.contextmanager
def writing_alone(server: LocalLabelStudio) -> Iterator[None]:
    """Nobody else can write annotations into Label Studio's database; they wait for as long as it lets them."""
    if ON_POSTGRESQL:
        with psycopg.connect(shared_postgres().address(server.environment["POSTGRE_NAME"])) as database:
            database.execute("LOCK TABLE task_completion IN EXCLUSIVE MODE")
            yield
        return
    file = server.data_dir / "label_studio.sqlite3"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def test_an_answer_given_while_label_studios_database_is_busy_is_stored_once(
    label_studio: LocalLabelStudio, client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(1)
    served = client.next_task(project.id)
    assert served is not None
    busy = threading.Event()

    def write_for_long() -> None:
        # Longer than the five seconds after which Label Studio gives up waiting on SQLite.
        with writing_alone(label_studio):
            busy.set()
            time.sleep(8)

    writer = threading.Thread(target=write_for_long)
    writer.start()
    busy.wait()
    given = client.answer(served, SCHEMA, ["cat"])
    writer.join()
    [stored] = client.task(served.id).annotations or ()
    assert stored["id"] == given["id"]
    assert read_answer(SCHEMA, stored).choices == ("cat",)
