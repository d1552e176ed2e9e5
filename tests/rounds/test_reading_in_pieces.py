"""What changed in Label Studio is stored as it is read, whatever comes in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.errors import LabelStudioUnreachable
from backend.labelstudio.records import ProjectInfo, TaskSnapshot
from backend.rounds import sync
from backend.rounds.services import Services
from backend.rounds.sync import sync_project
from backend.settings import Settings
from backend.store import projects, tasks

MOMENT = "2026-01-01T00:00:00Z"
CONFIG = (
    "<View><Text name='words' value='$title'/><Choices name='tone' toName='words'>"
    "<Choice value='A'/><Choice value='B'/></Choices></View>"
)
CHUNK = 100
MANY = 2 * CHUNK + 20


def task(task_id: int, *, answered: bool) -> TaskSnapshot:
    value = {"type": "choices", "from_name": "tone", "to_name": "words", "value": {"choices": ["A"]}}
    annotation = {"id": task_id, "result": [value], "updated_at": MOMENT, "created_at": MOMENT, "completed_by": 1}
    whole = {"id": task_id, "data": {"title": f"words {task_id}"}, "updated_at": MOMENT}
    return TaskSnapshot.read({**whole, "annotations": [annotation] if answered else []})


class ManyTasks:
    """A project with many answered tasks, told one by one; `most`: how many of them were held at once."""

    def __init__(self, services: Services) -> None:
        self.store, self.task_number, self.answers, self.breaks_after = services.store, 0, 0, MANY
        self.listed: Iterable[int] = ()
        self.most = 0
        services.__dict__["label_studio"] = self

    def told(self, task_ids: Iterable[int], stored: int) -> Iterator[TaskSnapshot]:
        for count, task_id in enumerate(task_ids):
            if count == self.breaks_after:
                raise LabelStudioUnreachable("away")
            if count % 10 == 0:
                held = count - (len(tasks.live_ids(self.store, 1)) - stored)
                self.most = max(self.most, held)
            yield task(task_id, answered=True)

    def project(self, project_id: int) -> ProjectInfo:
        told: dict[str, Any] = {"id": project_id, "label_config": CONFIG, "created_at": MOMENT}
        counted = {"task_number": self.task_number, "total_annotations_number": self.answers}
        return ProjectInfo.read({**told, **counted})

    def server_time(self) -> datetime:
        return datetime.now(UTC)

    def iter_tasks(self, project_id: int) -> Iterator[TaskSnapshot]:
        return iter(())

    def annotated_tasks(self, project_id: int) -> Iterator[TaskSnapshot]:
        return iter(())

    def changed_tasks(self, project_id: int, since: datetime) -> Iterator[TaskSnapshot]:
        return self.told(self.listed, len(tasks.live_ids(self.store, 1)))

    def task_ids(self, project_id: int) -> set[int]:
        return set(range(1, self.task_number + 1))

    def tasks_with_annotations(self, project_id: int, task_ids: Iterable[int]) -> dict[int, TaskSnapshot]:
        asked = list(task_ids)
        self.most = max(self.most, len(asked))
        return {task_id: task(task_id, answered=True) for task_id in asked}


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setattr(sync, "CHUNK", CHUNK)
    return Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))


@pytest.fixture
def told(services: Services) -> ManyTasks:
    """A project that was read while it was empty, into which many answered tasks were then imported."""
    label_studio = ManyTasks(services)
    projects.remember(services.store, 1, state="attached", label_config=CONFIG)
    sync_project(services, 1)
    label_studio.task_number = label_studio.answers = MANY
    return label_studio


def known(services: Services) -> tuple[int, int]:
    """(tasks, labelled ones)."""
    counts = tasks.counts(services.store, 1, services.encoder_id)
    return counts.live, counts.by_label.get("label", 0)


def test_changes_are_stored_as_they_are_read(services: Services, told: ManyTasks) -> None:
    told.listed = range(1, MANY + 1)
    sync_project(services, 1)
    assert known(services) == (MANY, MANY)
    assert CHUNK / 2 < told.most <= CHUNK


def test_a_reading_that_is_cut_off_keeps_what_it_had_and_is_done_again_from_where_it_began(
    services: Services, told: ManyTasks
) -> None:
    told.listed, told.breaks_after = range(1, MANY + 1), CHUNK + 20
    mark = projects.get(services.store, 1).watermark
    with pytest.raises(LabelStudioUnreachable):
        sync_project(services, 1)
    assert known(services) == (CHUNK, CHUNK)
    assert projects.get(services.store, 1).watermark == mark
    told.breaks_after = MANY
    sync_project(services, 1)
    assert known(services) == (MANY, MANY)
    assert projects.get(services.store, 1).watermark > mark


def test_tasks_that_no_look_told_of_are_asked_for_in_pieces(services: Services, told: ManyTasks) -> None:
    sync_project(services, 1)
    assert known(services) == (MANY, MANY)
    assert told.most == CHUNK


def test_answers_that_are_not_listed_are_asked_for_in_pieces(services: Services, told: ManyTasks) -> None:
    told.listed = range(1, MANY + 1)
    sync_project(services, 1)
    told.listed, told.most = (), 0
    for _ in range(2):  # Label Studio counts one answer less, and goes on doing so
        told.answers = MANY - 1
        sync_project(services, 1)
    assert known(services) == (MANY, MANY)
    assert told.most == CHUNK
