"""What order Label Studio serves tasks in, and what it does to predictions: the facts publishing relies on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from backend.errors import LabelStudioRefused, PredictionsInvalid, PublishRefused, UnknownTasks
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.predictions import PredictionRow, check_rows, queue_row
from backend.labelstudio.project_setup import SAMPLING
from backend.labelstudio.records import ProjectInfo
from backend.labelstudio.schema import TaskSchema
from tests.team_servers import ON_POSTGRESQL

from .conftest import CONFIG, MakeProject

pytestmark = pytest.mark.live

SCHEMA = TaskSchema.from_label_config(CONFIG)


def queue(ids: list[int], version: str, answer: str | None = None) -> list[PredictionRow]:
    return [queue_row(task, rank, len(ids), version, SCHEMA, answer) for rank, task in enumerate(ids)]


def publish(client: LabelStudio, project: ProjectInfo, ids: list[int], version: str, **options: Any) -> None:
    rows = queue(ids, version, **options)
    check_rows(CONFIG, rows)
    client.import_predictions(project.id, rows)
    client.set_model_version(project.id, version)


@pytest.fixture
def project(client: LabelStudio, make_project: MakeProject) -> ProjectInfo:
    """12 tasks, sampled by uncertainty."""
    made = make_project(12)
    return client.update_project(made.id, sampling=SAMPLING)


def shuffled(client: LabelStudio, project: ProjectInfo, seed: int) -> list[int]:
    ids = sorted(client.task_ids(project.id))
    random.Random(seed).shuffle(ids)
    return ids


def served(client: LabelStudio, project: ProjectInfo, number: int) -> list[int]:
    """Ids of the next tasks, each submitted before the next is asked for."""
    order = []
    for _ in range(number):
        task = client.next_task(project.id)
        assert task is not None
        client.submit(task.id, SCHEMA, ["cat"])
        order.append(task.id)
    return order


def test_tasks_are_served_in_rank_order_and_a_new_queue_replaces_the_old(
    client: LabelStudio, project: ProjectInfo
) -> None:
    first = shuffled(client, project, 1)
    publish(client, project, first[:8], "v1-test")
    assert served(client, project, 4) == first[:4]
    second = shuffled(client, project, 2)
    second = [task for task in second if task not in first[:4]]
    publish(client, project, second, "v2-test")
    assert client.delete_model_version(project.id, "v1-test") == 8
    assert served(client, project, 8) == second
    assert client.next_task(project.id) is None
    assert client.queue_left(project.id) == 0


def test_queue_left_counts_published_tasks_without_an_answer(client: LabelStudio, project: ProjectInfo) -> None:
    publish(client, project, shuffled(client, project, 3)[:5], "v1-test")
    assert client.queue_left(project.id) == 5
    served(client, project, 2)
    assert client.queue_left(project.id) == 3


def test_rows_without_answer_leave_the_form_blank_and_rows_with_one_carry_it(
    client: LabelStudio, project: ProjectInfo
) -> None:
    ids = shuffled(client, project, 4)
    publish(client, project, ids[:6], "v1-test")
    task = client.next_task(project.id)
    assert task is not None and [p["result"] for p in task.predictions] == [[]]
    client.submit(task.id, SCHEMA, ["cat"])
    publish(client, project, ids[6:], "v2-test", answer="dog")
    task = client.next_task(project.id)
    assert task is not None and task.id == ids[6]
    (prediction,) = (p for p in task.predictions if p["model_version"] == "v2-test")
    assert prediction["result"][0]["value"] == {"choices": ["dog"]}


@pytest.mark.parametrize("score", [-1e-9, 1.0000001, -3.0])
def test_rows_outside_zero_to_one_are_dropped_in_silence_so_both_checks_find_them(
    client: LabelStudio, project: ProjectInfo, score: float
) -> None:
    good, bad = queue(shuffled(client, project, 5)[:2], "v1-test")
    bad["score"] = score
    with pytest.raises(PredictionsInvalid, match=str(bad["task"])):
        check_rows(CONFIG, [good, bad])
    with pytest.raises(PublishRefused, match="stored 1 of 2"):
        client.import_predictions(project.id, [good, bad])
    assert client.model_versions(project.id) == {"v1-test": 1}


def test_rows_with_an_answer_that_is_no_choice_are_dropped_in_silence(
    client: LabelStudio, project: ProjectInfo
) -> None:
    good, bad = queue(shuffled(client, project, 6)[:2], "v1-test", answer="dog")
    bad["result"][0]["value"]["choices"] = ["horse"]
    with pytest.raises(PredictionsInvalid, match="horse"):
        check_rows(CONFIG, [good, bad])
    with pytest.raises(PublishRefused, match="stored 1 of 2"):
        client.import_predictions(project.id, [good, bad])


def test_rows_without_a_score_come_first_on_sqlite_and_last_on_postgresql_so_none_is_ever_published(
    client: LabelStudio, project: ProjectInfo
) -> None:
    ids = shuffled(client, project, 14)
    scored, unscored = ids[:3], ids[3:5]
    client.import_predictions(project.id, queue(scored, "v1-test"))
    rows = [{"task": task, "result": [], "model_version": "v1-test"} for task in unscored]
    client.http.request("POST", f"/api/projects/{project.id}/import/predictions", body=rows)
    client.set_model_version(project.id, "v1-test")
    found = served(client, project, 5)
    assert [task for task in found if task in scored] == scored
    assert set(found[-2:] if ON_POSTGRESQL else found[:2]) == set(unscored)


def test_one_unknown_task_refuses_the_whole_batch_and_all_of_them_are_named(
    client: LabelStudio, project: ProjectInfo
) -> None:
    ids = shuffled(client, project, 7)
    client.delete_tasks(project.id, ids[:2])
    rows = queue(ids, "v1-test")
    # Label Studio itself names the first one only.
    with pytest.raises(LabelStudioRefused) as refused:
        client.http.request("POST", f"/api/projects/{project.id}/import/predictions", body=rows)
    assert [int(i) for i in re.findall(r"'task': (\d+)", refused.value.detail)] == ids[:1]
    with pytest.raises(UnknownTasks) as unknown:
        client.import_predictions(project.id, rows)
    assert unknown.value.task_ids == frozenset(ids[:2])
    assert client.model_versions(project.id) == {}


def test_publishing_moves_no_task_clock(client: LabelStudio, project: ProjectInfo) -> None:
    before = client.tasks_by_id(project.id, client.task_ids(project.id))
    publish(client, project, sorted(before), "v1-test")
    publish(client, project, sorted(before), "v2-test")
    client.delete_model_version(project.id, "v1-test")
    (prediction, *_) = client.stored_predictions(project.id, "v2-test")
    assert client.delete_prediction(prediction.id)
    assert not client.delete_prediction(prediction.id)
    after = client.tasks_by_id(project.id, before)
    moved = {task for task in before if after[task] != before[task]}
    assert moved == {prediction.task_id}  # deleting one by one is read as a change of the task, in bulk is not


def test_version_in_force_must_exist_and_its_deletion_leaves_none(client: LabelStudio, project: ProjectInfo) -> None:
    ids = shuffled(client, project, 8)
    with pytest.raises(LabelStudioRefused, match="400"):
        client.set_model_version(project.id, "v1-test")
    publish(client, project, ids, "v1-test")
    client.import_predictions(project.id, queue(ids, "v2-test"))
    client.delete_model_version(project.id, "v2-test")
    assert client.project(project.id).model_version == "v1-test"
    client.delete_model_version(project.id, "v1-test")
    assert client.project(project.id).model_version is None


def test_saving_the_settings_page_keeps_the_sampling_and_may_bring_back_an_old_version(
    client: LabelStudio, project: ProjectInfo
) -> None:
    ids = shuffled(client, project, 9)
    publish(client, project, ids, "v1-test")
    publish(client, project, ids[::-1], "v2-test")
    # The page sends back the version that it loaded; the order changes with it at once.
    stale = client.update_project(project.id, model_version="v1-test", title="renamed", description="x")
    assert (stale.model_version, stale.sampling) == ("v1-test", SAMPLING)
    assert served(client, project, 2) == ids[:2]


def test_stored_predictions_are_those_of_one_version_only(client: LabelStudio, project: ProjectInfo) -> None:
    ids = shuffled(client, project, 10)
    client.import_predictions(project.id, queue(ids, "v1-live"))
    client.import_predictions(project.id, queue(ids[:3], "v1-live"))
    client.import_predictions(project.id, queue(ids, "v11-live"))
    found = client.stored_predictions(project.id, "v1-live")
    assert len(found) == len(ids) + 3
    assert {p.model_version for p in found} == {"v1-live"}
    assert {p.task_id for p in found} == set(ids)


def test_a_skipped_task_goes_on_to_other_annotators_in_its_place(
    label_studio: LocalLabelStudio,
    client: LabelStudio,
    project: ProjectInfo,
    annotators: Callable[[int], list[Account]],
) -> None:
    ids = shuffled(client, project, 11)
    publish(client, project, ids, "v1-test")
    one, other = (label_studio.client(account) for account in annotators(2))
    first = one.next_task(project.id)
    assert first is not None and first.id == ids[0]
    one.skip(first.id)
    second = one.next_task(project.id)
    assert second is not None and second.id == ids[1]
    others = other.next_task(project.id)
    assert others is not None and others.id == ids[0]


def test_annotators_hold_different_tasks_and_keep_them_when_the_queue_changes(
    label_studio: LocalLabelStudio,
    client: LabelStudio,
    project: ProjectInfo,
    annotators: Callable[[int], list[Account]],
) -> None:
    ids = shuffled(client, project, 12)
    publish(client, project, ids, "v1-test")
    users = [label_studio.client(account) for account in annotators(3)]
    held = [user.next_task(project.id) for user in users]
    assert [task.id for task in held if task] == ids[:3]
    publish(client, project, ids[::-1], "v2-test")
    again = [user.next_task(project.id) for user in users]
    assert [(task.id, task.queue) for task in again if task] == [(i, "Task lock") for i in ids[:3]]
    users[0].submit(ids[0], SCHEMA, ["cat"])
    fresh = users[0].next_task(project.id)
    assert fresh is not None and fresh.id == ids[-1]


def test_annotators_working_at_once_get_tasks_of_the_queue_and_no_errors(
    label_studio: LocalLabelStudio,
    client: LabelStudio,
    project: ProjectInfo,
    annotators: Callable[[int], list[Account]],
) -> None:
    ids = shuffled(client, project, 13)
    publish(client, project, ids[:9], "v1-test")

    def work(account: Account) -> list[int]:
        return served(label_studio.client(account), project, 3)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(work, annotators(3)))
    taken = [task for tasks in done for task in tasks]
    # On SQLite two users may get the same task now and then; what they get is always from the queue, in order.
    assert not ON_POSTGRESQL or len(set(taken)) == len(taken)
    assert set(taken) <= set(ids[:9])
    rank = {task: n for n, task in enumerate(ids)}
    assert all(rank[a] < rank[b] for tasks in done for a, b in pairwise(tasks))
