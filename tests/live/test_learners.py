"""Projects of the templates whose answers train another model than classes on frozen vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.errors import ConfigurationError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.connecting import set_options
from backend.rounds.creating import create_project
from backend.rounds.models import load_model
from backend.rounds.services import Services, schema_of
from backend.store import projects, rounds
from backend.store.tables import Round
from backend.store.tasks import vector_rows
from backend.strategies import describe, strategy_names
from tests.live.backend_process import BackendProcess, wait_for
from tests.live.pairing_loop import COLOURS, picture

pytestmark = pytest.mark.live

NAMES = list(COLOURS)
MakeTasks = Callable[[int], list[dict[str, Any]]]


def alignment_tasks(count: int) -> list[dict[str, Any]]:
    """Every other text names the colours of its picture."""
    tasks = []
    for n in range(count):
        left, right = NAMES[n % 5], NAMES[(n * 3 + n // 5) % 5]
        fits = n % 2 == 0
        words = f"left {left} right {right}" if fits else f"left {NAMES[(n + 2) % 5]} right {NAMES[(n + 1) % 5]}"
        tasks.append({"image": picture(left, right, n), "text": words, "truth": ["match" if fits else "mismatch"]})
    return tasks


def grading_tasks(count: int) -> list[dict[str, Any]]:
    """The texts of the alignment tasks as queries."""
    grades = {"match": ["3"], "mismatch": ["0"]}
    return [
        {"image": task["image"], "query": task["text"], "truth": grades[task["truth"][0]]}
        for task in alignment_tasks(count)
    ]


def retrieval_tasks(count: int) -> list[dict[str, Any]]:
    """A picture and its words belong to the class of each of their colours."""
    tasks = []
    for n in range(count):
        left, right = NAMES[n % 5], NAMES[(n * 3 + n // 5) % 5]
        truth = sorted({left.title(), right.title()})
        tasks.append({"image": picture(left, right, n), "text": f"{left} beside {right} no{n}", "truth": truth})
    return tasks


@contextmanager
def running(
    server: LocalLabelStudio, folder: Path, template: str, tasks: list[dict[str, Any]], **options: Any
) -> Iterator[tuple[BackendProcess, Services, int]]:
    backend = BackendProcess(folder / "backend", server.url, server.admin.token)
    services = backend.services()
    tasks_file, labels_file = folder / "tasks.json", folder / "labels.txt"
    tasks_file.write_text(json.dumps(tasks))
    labels_file.write_text("\n".join(name.title() for name in NAMES))
    with backend:
        project = create_project(
            services,
            template,
            tasks_file=tasks_file,
            labels_file=labels_file if template == "cross_modal_retrieval" else None,
            title=folder.name[:40],
            options={"batch_size": 8, "queue_size": 30, "refresh_share": 1.0, "poll_seconds": 1, **options},
        )
        yield backend, services, project.id


def label_batches(server: LocalLabelStudio, services: Services, project_id: int, batches: int) -> Round:
    """Answer whole batches with the truth; the round after the last one."""
    client, version = server.client(), ""
    for _ in range(batches):
        version = next_version(services, project_id, version)
        answer_batch(client, services, project_id)
    next_version(services, project_id, version)
    return rounds.of_project(services.store, project_id, "published", limit=1)[0]


def next_version(services: Services, project_id: int, after: str) -> str:
    def found() -> str:
        version = projects.get(services.store, project_id).version
        return version if version != after else ""

    return wait_for(f"a queue after {after!r}", found)


def predict(backend: BackendProcess, services: Services, project_id: int, task_id: int) -> dict[str, Any]:
    project = projects.get(services.store, project_id)
    body = {
        "tasks": [{"id": task_id, "data": {}}],
        "project": f"{project_id}.1",
        "label_config": project.label_config,
    }
    return dict(requests.post(f"{backend.url}/predict", json=body, timeout=30).json()["results"][0])


def answer_batch(client: LabelStudio, services: Services, number: int) -> dict[int, dict[str, Any]]:
    """Task to annotation: the next eight that Label Studio serves, answered with the truth."""
    schema, given = schema_of(projects.get(services.store, number)), {}
    for _ in range(8):
        served = client.next_task(number)
        assert served is not None
        given[served.id] = client.answer(served, schema, served.data["truth"])
    return given


def labels_of(services: Services, number: int) -> dict[int, list[str]]:
    rows = vector_rows(services.store, number, services.encoder_id)
    return {row.task_id: sorted(row.label) for row in rows if row.label_kind == "label"}


def choices_of(annotation: dict[str, Any]) -> list[str]:
    return sorted(annotation["result"][0]["value"]["choices"])


@pytest.mark.parametrize(
    ("template", "made", "other", "kind"),
    [
        ("image_text_alignment", alignment_tasks, ["partly"], "alignment"),
        ("relevance_grading", grading_tasks, ["2"], "alignment"),
        ("cross_modal_retrieval", retrieval_tasks, [name.title() for name in NAMES], "two_branch"),
    ],
)
def test_three_rounds_are_learnt_through_a_kill_and_changes_of_mind(
    label_studio: LocalLabelStudio, tmp_path: Path, template: str, made: MakeTasks, other: list[str], kind: str
) -> None:
    client = label_studio.client()
    with running(label_studio, tmp_path, template, made(60)) as (backend, services, number):
        version = next_version(services, number, "")
        given = answer_batch(client, services, number)
        version = next_version(services, number, version)

        backend.kill9("worker")
        changed, deleted = list(given)[:2]
        region = given[changed]["result"][0]
        given[changed] = client.update_annotation(
            given[changed]["id"], result=[{**region, "value": {"choices": other}}]
        )
        client.delete_annotation(given.pop(deleted)["id"])
        given |= answer_batch(client, services, number)
        skipped = client.next_task(number)
        assert skipped is not None
        client.skip(skipped.id)
        backend.start("worker")
        next_version(services, number, version)

        given |= answer_batch(client, services, number)
        wanted = {task: choices_of(annotation) for task, annotation in given.items()}
        wait_for("every answer as it stands now", lambda: labels_of(services, number) == wanted)
        assert skipped.id not in wanted
        version = projects.get(services.store, number).version
        projects.request_round(services.store, number, "the test", at_once=True)
        next_version(services, number, version)
        [last] = rounds.of_project(services.store, number, "published", limit=1)
        assert last.counts["labels"] == len(wanted)
        assert kind_of_model(services, last) == kind
        queued = rounds.queue(services.store, last.id)
        assert 0 <= predict(backend, services, number, queued[-1].task_id)["score"] < 1


def kind_of_model(services: Services, of: Round) -> str:
    """What the round saved."""
    assert of.schema_hash == schema_of(projects.get(services.store, of.project_id)).config_hash
    return load_model(services.store.data_dir / of.head).state()[1]["kind"]


def test_every_strategy_that_compares_pairs_publishes_a_batch(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with running(label_studio, tmp_path, "cross_modal_retrieval", retrieval_tasks(60)) as (_, services, number):
        label_batches(label_studio, services, number, 1)
        for name in [name for name in strategy_names() if "shared_space" in describe(name).needs]:
            version = projects.get(services.store, number).version
            set_options(services, number, {"strategy": name}, "the test")
            assert next_version(services, number, version).endswith(f"-{name}")


@pytest.mark.parametrize("learner", ["two_branch", "ascmr_network"])
def test_a_retrieval_project_is_ranked_by_ascmr(label_studio: LocalLabelStudio, tmp_path: Path, learner: str) -> None:
    options = {"strategy": "ascmr", "learner": learner}
    tasks = retrieval_tasks(60)
    with running(label_studio, tmp_path, "cross_modal_retrieval", tasks, **options) as (backend, services, number):
        last = label_batches(label_studio, services, number, 2)
        assert (last.strategy, last.counts["labels"]) == ("ascmr", 16)
        assert kind_of_model(services, last) == learner
        batch = [entry for entry in rounds.queue(services.store, last.id) if entry.role == "batch"]
        assert batch and all(entry.figures for entry in batch)
        assert 0 <= predict(backend, services, number, batch[0].task_id)["score"] < 1


def test_a_strategy_or_learner_that_the_project_cannot_feed_is_refused_with_a_word(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    with running(label_studio, tmp_path, "image_text_alignment", alignment_tasks(4)) as (_, services, number):
        for changes, words in (
            ({"strategy": "ascmr"}, "cross_modal_retrieval"),
            ({"strategy": "three_step"}, "pairs two pools"),
            ({"learner": "two_branch"}, "several answers"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                set_options(services, number, changes, "the test")
