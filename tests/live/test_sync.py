"""Every answer ends up in the training set exactly once, whatever becomes of the webhooks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.store import tasks
from tests.live.backend_process import wait_for
from tests.live.flaky_relay import FlakyRelay
from tests.live.loop import Loop
from tests.live.pool import LABELS
from tests.live.relay import Relay, RelayedCall

pytestmark = pytest.mark.live


class Annotator:
    """Creates, edits, skips and deletes answers at random, and knows what must come of it."""

    def __init__(self, loop: Loop, seed: int) -> None:
        self.loop, self.random = loop, random.Random(seed)
        self.expected: dict[int, str] = {}
        self.skipped: set[int] = set()
        self.annotations: dict[int, int] = {}
        self.untouched = list(loop.task_ids)
        self.random.shuffle(self.untouched)

    def act(self) -> None:
        action = self.random.choice(["create", "create", "create", "edit", "skip", "delete"])
        if action in ("create", "skip") or not self.annotations:
            task_id = self.untouched.pop()
            if action == "skip":
                self.loop.client.skip(task_id)
                self.skipped.add(task_id)
            else:
                label = self.random.choice(LABELS)
                made = self.loop.client.submit(task_id, self.loop.schema, [label])
                self.annotations[task_id], self.expected[task_id] = made["id"], label
            return
        task_id = self.random.choice(sorted(self.annotations))
        if action == "delete":
            self.loop.client.delete_annotation(self.annotations.pop(task_id))
            del self.expected[task_id]
            return
        label = self.random.choice(LABELS)
        region = {"from_name": "tone", "to_name": "picture", "type": "choices", "value": {"choices": [label]}}
        self.loop.client.update_annotation(self.annotations[task_id], result=[region])
        self.expected[task_id] = label


def test_answers_are_learnt_exactly_once_through_lost_doubled_and_late_webhooks(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with FlakyRelay(seed=1) as relay:
        environment = {"MMAL_PUBLIC_URL": relay.url}
        loop = Loop(label_studio, tmp_path, tasks=400, options={"poll_seconds": 2}, environment=environment)
        relay.target = loop.backend.url
        with loop:
            loop.wait_for_version()
            annotator = Annotator(loop, seed=2)
            for _ in range(120):
                annotator.act()
            wait_for("the training set to be what was answered", lambda: loop.training_set() == annotator.expected)
            assert loop.status.skipped == len(annotator.skipped)
            assert min(relay.fates[fate] for fate in ("lost", "doubled", "late", "passed")) > 5
            loop.ask_for_round()
            assert not set(loop.queued_ids()) & (annotator.expected.keys() | annotator.skipped)


def test_without_any_webhook_polling_finds_tasks_answers_and_deletions(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with Loop(label_studio, tmp_path, tasks=60, options={"poll_seconds": 1, "batch_size": 10}) as loop:
        loop.wait_for_version()
        for hook in loop.client.webhooks(loop.project_id):
            loop.client.delete_webhook(hook.id)
        answered = loop.label_batch(4)
        added = loop.client.import_tasks(
            loop.project_id, [{"photo": "", "title": "late stone no900", "truth": "grey"}]
        )
        loop.client.delete_tasks(loop.project_id, [*loop.task_ids[-5:], answered[0]])
        gone = {*loop.task_ids[-5:], answered[0]}
        expected = set(answered) - gone
        wait_for("the answers", lambda: loop.training_set().keys() == expected)
        wait_for(
            "the tasks", lambda: tasks.live_ids(loop.services.store, loop.project_id)
            == ({*loop.task_ids, *added} - gone)
        )  # fmt: skip
        loop.ask_for_round()
        assert not set(loop.queued_ids()) & gone


def test_answers_deleted_in_bulk_leave_the_training_set(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with Loop(label_studio, tmp_path, tasks=60, options={"poll_seconds": 1, "batch_size": 20}) as loop:
        loop.wait_for_version()
        for hook in loop.client.webhooks(loop.project_id):
            loop.client.delete_webhook(hook.id)
        answered = loop.label_batch(6)
        loop.wait_for_labels(6)
        loop.client.delete_annotations_of(loop.project_id, answered[:4])
        wait_for("the deletions", lambda: loop.training_set().keys() == set(answered[4:]))


def test_majority_trains_ties_stay_out_and_ground_truth_wins(
    label_studio: LocalLabelStudio, annotators: object, tmp_path: Path
) -> None:
    with Loop(label_studio, tmp_path, tasks=40, options={"poll_seconds": 1, "batch_size": 20}) as loop:
        loop.wait_for_version()
        team = [loop.client, *(label_studio.client(a) for a in annotators(2))]  # type: ignore[operator]
        majority, tie, truth = loop.task_ids[:3]
        for person, label in zip(team, ("warm", "warm", "cold"), strict=True):
            person.submit(majority, loop.schema, [label])
        for person, label in zip(team[:2], ("warm", "cold"), strict=True):
            person.submit(tie, loop.schema, [label])
        for person in team:
            person.submit(truth, loop.schema, ["warm"])
        right = loop.client.submit(truth, loop.schema, ["grey"])
        loop.client.update_annotation(right["id"], ground_truth=True)
        wait_for("the labels", lambda: loop.training_set() == {majority: "warm", truth: "grey"})
        assert tasks.unsettled(loop.services.store, loop.project_id) == [(tie, "tie")]
        assert f"task {tie}: tie" in loop.backend.cli("queue", "ties", "-p", str(loop.project_id)).stdout


def test_imported_annotations_train_like_others(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    from tests.live.pool import make_tasks

    region = {"from_name": "tone", "to_name": "picture", "type": "choices"}
    data = [
        {"data": task, "annotations": [{"result": [{**region, "value": {"choices": [task["truth"]]}}]}]}
        if number < 12
        else {"data": task}
        for number, task in enumerate(make_tasks(50))
    ]
    with Loop(label_studio, tmp_path, data=data) as loop:
        loop.wait_for_version()
        assert loop.training_set() == {
            task_id: task["data"]["truth"] for task_id, task in zip(loop.task_ids[:12], data, strict=False)
        }
        assert not set(loop.queued_ids()) & set(loop.task_ids[:12])


def test_a_skipped_task_stays_out_until_the_admin_puts_it_back(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"poll_seconds": 1, "batch_size": 5, "queue_size": 50, "refresh_share": 1.0}
    with Loop(label_studio, tmp_path, tasks=30, options=options) as loop:
        version = loop.wait_for_version()
        skipped = loop.client.next_task(loop.project_id)
        assert skipped is not None
        loop.client.skip(skipped.id)
        loop.label_batch(5)
        version = loop.wait_for_version(after=version)
        assert skipped.id not in loop.queued_ids()
        assert "1 skipped tasks are back" in loop.backend.cli("queue", "restore", "-p", str(loop.project_id)).stdout
        loop.wait_for_version(after=version)
        assert skipped.id in loop.queued_ids()


def test_a_changed_label_config_is_learnt_anew(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    from tests.live.pool import CONFIG

    with Loop(label_studio, tmp_path, tasks=40, options={"poll_seconds": 1, "batch_size": 20}) as loop:
        version = loop.wait_for_version()
        answered = loop.label_batch(6)
        loop.wait_for_labels(6)
        larger = CONFIG.replace('<Choice value="grey"/>', '<Choice value="grey"/><Choice value="none"/>')
        loop.client.update_project(loop.project_id, label_config=larger)
        # Six of a batch of twenty would not bring a round.
        loop.wait_for_version(after=version)
        extra = next(task_id for task_id in loop.task_ids if task_id not in answered)
        schema = loop.schema
        loop.client.submit(extra, schema, ["none"])
        wait_for("the new choice to be learnt", lambda: loop.training_set().get(extra) == "none")
        assert loop.status.labels == 7


class StaleCount(Relay):
    """Label Studio whose count of one task's annotations is stale: filtered by it, the task is not listed."""

    left_out = 0

    def serve(self, call: RelayedCall) -> None:
        answer = call.forward()
        if "filter%3Atasks%3Atotal_annotations" not in call.path:
            call.reply(answer)
            return
        listed = answer.json()
        kept = [task for task in listed["tasks"] if task["id"] != self.left_out]
        listed |= {"tasks": kept, "total": listed["total"] - len(listed["tasks"]) + len(kept)}
        call.answer(answer.status_code, json.dumps(listed).encode())


def test_an_answer_that_label_studio_does_not_count_stays_learnt_when_everything_is_compared(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with StaleCount() as relay:
        relay.target = label_studio.url
        options = {"poll_seconds": 1, "batch_size": 10}
        environment = {"LABEL_STUDIO_URL": relay.url}
        with Loop(label_studio, tmp_path, tasks=30, options=options, environment=environment) as loop:
            loop.wait_for_version()
            relay.left_out, _, other = loop.label_batch(3)
            loop.wait_for_labels(3)
            loop.backend.stop("worker")
            loop.client.delete_annotations_of(loop.project_id, [other])
            compared = loop.project.reconciled_at
            loop.backend.start("worker")
            wait_for("everything to be compared", lambda: loop.project.reconciled_at > compared)
            assert loop.status.labels == 2
            assert relay.left_out in loop.training_set()
