"""What a round decides about tasks with several answers, beside a look at Label Studio that reads others."""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy import delete, update

from backend.store import Store, answers, projects, tasks
from backend.store.tables import AnswerRow, Task


def labelled(task_id: int, kind: str, *given: str) -> tasks.Labelling:
    rows: list[dict[str, Any]] = [
        {"annotation_id": 10 * task_id + who, "task_id": task_id, "annotator_id": who, "updated_at": "2026-01-01",
         "choices": [choice], "has_choices": True, "was_cancelled": False, "ground_truth": False, "problem": ""}
        for who, choice in enumerate(given, start=1)
    ]  # fmt: skip
    return tasks.Labelling(task_id, kind, [given[0]] if kind == "label" else [], rows)


def remember(store: Store, *labellings: tasks.Labelling) -> None:
    projects.remember(store, 1, state="attached")
    tasks.remember(store, 1, [tasks.Inputs(one.task_id, "", "text") for one in labellings])
    tasks.label(store, 1, labellings)


def label_of(store: Store, task_id: int) -> tuple[str, list[str]]:
    with store.reading() as session:
        task = session.get_one(Task, (1, task_id))
        return task.label_kind, task.label


def test_only_tasks_whose_answers_are_those_they_were_decided_by_are_labelled(store: Store) -> None:
    remember(store, *(labelled(n, "tie", "a", "b") for n in range(1, 6)))
    read = answers.of_several(store, 1)
    assert {task_id: len(rows) for task_id, rows in read.items()} == dict.fromkeys(range(1, 6), 2)
    tasks.label(store, 1, [labelled(2, "label", "c"), tasks.Labelling(3, "none"), labelled(4, "tie", "a", "b", "c")])
    tasks.drop(store, 1, [5])
    decided = {task_id: ("label", ["b"]) for task_id in read}
    assert answers.relabel(store, 1, decided, read) == 1
    assert [label_of(store, n) for n in range(1, 6)] == [
        ("label", ["b"]), ("label", ["c"]), ("none", []), ("tie", []), ("none", [])
    ]  # fmt: skip
    assert answers.relabel(store, 1, decided, read) == 0


def test_a_look_that_is_writing_just_then_is_waited_for(store: Store) -> None:
    remember(store, labelled(1, "label", "a", "a"))
    read = answers.of_several(store, 1)
    changed: list[int] = []

    def decide() -> None:
        changed.append(answers.relabel(store, 1, {1: ("tie", [])}, read))

    deciding = threading.Thread(target=decide)
    with store.writing(1) as session:
        session.execute(delete(AnswerRow).where(AnswerRow.project_id == 1, AnswerRow.annotation_id == 11))
        session.execute(update(Task).where(Task.project_id == 1).values(label=["c"]))
        deciding.start()
        deciding.join(timeout=0.5)
        assert deciding.is_alive(), "it read what another is about to replace"
    deciding.join()
    assert changed == [0]
    assert label_of(store, 1) == ("label", ["c"])
