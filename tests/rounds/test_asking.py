"""What becomes of the tasks of questions that nobody needs answered, without Label Studio."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.rounds.pairing.asking import withdraw
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import pair_queries, projects, tasks
from backend.store.tables import PairQueryRow


class BusyAnnotators:
    """Stands for a Label Studio in which somebody worked on some tasks since the round read the answers."""

    def __init__(self, touched: set[int]) -> None:
        self.touched = touched

    def delete_untouched_tasks(self, _project_id: int, task_ids: Iterable[int]) -> set[int]:
        return set(task_ids) - self.touched


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A store in which project 1 has three open questions, two of which have tasks."""
    found = Services(Settings(data_dir=tmp_path / "data", label_studio_api_key=SecretStr("none")))
    projects.remember(found.store, 1, state="attached")
    questions = [
        {"key": key, "task_id": task_id, "round_number": 1, "modality": "image", "item": n, "candidates": [9]}
        for n, (key, task_id) in enumerate([("a", 10), ("b", 11), ("c", 0)])
    ]
    pair_queries.choose(found.store, 1, questions)
    tasks.remember(found.store, 1, [tasks.Inputs(10, "", ""), tasks.Inputs(11, "", "")])
    return found


def asked(services: Services) -> list[PairQueryRow]:
    return pair_queries.every(services.store, 1)


def test_a_question_that_somebody_just_answered_is_not_withdrawn_and_its_task_stays_known(services: Services) -> None:
    services.label_studio = BusyAnnotators({11})  # type: ignore[assignment]
    withdraw(services, 1, asked(services))
    assert {q.key: (q.answer, q.task_id) for q in asked(services)} == {
        "a": ("withdrawn", 10),
        "b": ("open", 11),
        "c": ("withdrawn", 0),
    }
    assert tasks.live_ids(services.store, 1) == {11}
