"""Several annotators a task: what Label Studio does about overlap, and what comes of it in the training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.project_setup import SAMPLING
from backend.rounds.connecting import detach_project
from backend.store import answers, tasks
from tests.live.backend_process import wait_for
from tests.live.loop import Loop
from tests.live.test_label_studio_order import SCHEMA, publish

from .conftest import MakeProject

pytestmark = pytest.mark.live

Team = Callable[[int], list[Account]]


def done(client: LabelStudio, project_id: int, task_id: int) -> bool:
    """Whether Label Studio takes the task for done."""
    query = {"project": project_id, "fields": "task_only", "include": "id,is_labeled", "page_size": 100}
    rows = client.http.request("GET", "/api/tasks/", params=query)["tasks"]
    return next(bool(row["is_labeled"]) for row in rows if row["id"] == task_id)


def test_a_task_whose_overlap_is_raised_is_given_to_one_more_annotator(
    label_studio: LocalLabelStudio, client: LabelStudio, make_project: MakeProject, annotators: Team
) -> None:
    project = make_project(5)
    client.update_project(project.id, sampling=SAMPLING, maximum_annotations=2)
    ids = sorted(client.task_ids(project.id))
    publish(client, project, ids, "v1-test")
    team = [client, *(label_studio.client(account) for account in annotators(2))]
    for person, answer, queue in zip(team, ("cat", "dog"), ("Active learning", "Breadth first"), strict=False):
        served = person.next_task(project.id)
        assert served is not None and served.id == ids[0] and served.queue.startswith(queue)
        person.submit(ids[0], SCHEMA, [answer])
    assert done(client, project.id, ids[0])
    assert client.overlaps(project.id, ids[:2]) == {ids[0]: 2, ids[1]: 2}
    # The overlap alone does not open the task again: Label Studio only counts when an annotation comes or goes.
    assert client.set_overlap(ids[0], 3, done=True)
    assert done(client, project.id, ids[0])
    assert client.set_overlap(ids[0], 3, done=False)
    # It comes before tasks with fewer answers, wherever the queue has it, and to nobody who answered it.
    client.submit(ids[1], SCHEMA, ["cat"])
    publish(client, project, [*ids[1:], ids[0]], "v2-test")
    served, again = team[2].next_task(project.id), client.next_task(project.id)
    assert served is not None and served.id == ids[0]
    assert again is not None and again.id == ids[2]
    # Saving the settings and importing tasks leave it; the answer closes the task.
    client.update_project(project.id, title="renamed", maximum_annotations=2)
    client.import_tasks(project.id, [{"image": "", "text": "one more"}])
    assert client.overlaps(project.id, ids[:1]) == {ids[0]: 3}
    team[2].submit(ids[0], SCHEMA, ["cat"])
    assert done(client, project.id, ids[0])
    # Another overlap of the project is every task's.
    client.update_project(project.id, maximum_annotations=4)
    assert set(client.overlaps(project.id, ids).values()) == {4}
    client.delete_tasks(project.id, ids[:1])
    assert client.overlaps(project.id, ids[:1]) == {} and not client.set_overlap(ids[0], 1, done=True)


def test_where_tasks_are_for_one_annotator_a_raised_one_would_keep_the_others_from_following_the_project(
    client: LabelStudio, make_project: MakeProject
) -> None:
    project = make_project(3)
    ids = sorted(client.task_ids(project.id))
    client.set_overlap(ids[0], 2, done=False)
    client.update_project(project.id, maximum_annotations=3)
    assert client.overlaps(project.id, ids) == {ids[0]: 3, ids[1]: 1, ids[2]: 1}


def test_disagreement_is_settled_by_one_more_annotator(
    label_studio: LocalLabelStudio, annotators: Team, tmp_path: Path
) -> None:
    options = {"poll_seconds": 1, "batch_size": 5, "opinions": 4}
    with Loop(label_studio, tmp_path, tasks=30, options=options) as loop:
        loop.client.update_project(loop.project_id, maximum_annotations=2)
        loop.wait_for_version()
        team = [loop.client, *(label_studio.client(account) for account in annotators(3))]
        split, agreed, truth = loop.task_ids[:3]
        starred = team[3].submit(truth, loop.schema, ["grey"])
        loop.client.update_annotation(starred["id"], ground_truth=True)
        for task_id, words in ((split, ("warm", "cold")), (agreed, ("grey", "grey")), (truth, ("warm", "cold"))):
            for person, word in zip(team, words, strict=False):
                person.submit(task_id, loop.schema, [word])

        def labels() -> dict[int, str]:
            rows = tasks.vector_rows(loop.services.store, loop.project_id, loop.services.encoder_id)
            return {row.task_id: row.label[0] for row in rows if row.label_kind == "label"}

        wait_for("unanimous answers and the truth", lambda: labels() == {agreed: "grey", truth: "grey"})
        wait_for("another opinion to be asked for", lambda: loop.status.opinions_waiting == 1)
        assert loop.client.overlaps(loop.project_id, [split, agreed]) == {split: 3, agreed: 2}
        loop.client.submit(loop.task_ids[3], loop.schema, ["warm"])  # begun, too
        third = team[2].next_task(loop.project_id)
        assert third is not None and third.id == split
        opinion = team[2].submit(split, loop.schema, ["grey"])
        # Three answers, all different: a fourth annotator is asked, and no more after that.
        wait_for(
            "a fourth to be asked", lambda: loop.client.overlaps(loop.project_id, [split]) == {split: 4}
        )  # fmt: skip
        region = {"from_name": "tone", "to_name": "picture", "type": "choices", "value": {"choices": ["cold"]}}
        loop.client.update_annotation(opinion["id"], result=[region])
        wait_for("the changed answer to settle it", lambda: labels().get(split) == "cold")
        loop.client.delete_annotation(opinion["id"])
        wait_for("the tie to be back", lambda: split not in labels() and loop.status.opinions_waiting == 1)
        shown = loop.backend.cli("status", "-p", str(loop.project_id)).stdout
        assert "another one asked for on 1 tasks" in shown and "agreement  alpha" in shown
        loop.backend.stop("worker")
        detach_project(loop.services, loop.project_id)
        assert loop.client.overlaps(loop.project_id, [split]) == {split: 2}
        assert answers.raised_overlaps(loop.services.store, loop.project_id) == {}
