"""What is given to the encoder next, and what is tried again: neither costs a project what it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table, event, insert

from backend.settings import Settings
from backend.store import Store, catalogue, faults, open_store, projects, tasks
from backend.store.encoder_queue import DEFERRED
from backend.store.engines import connect
from backend.store.tables import Base

DEAD = "http://gone/1.jpg"


def embedded(store: Store, task_ids: Iterable[int], *, encoder: str = "e", problem: str = "") -> None:
    """Tasks that went through the encoder, each with its text and, where there is a problem, without its picture."""
    ids = list(task_ids)
    tasks.remember(store, 1, [tasks.Inputs(n, DEAD, f"text {n}") for n in ids])
    outcome = {"image": DEAD, "embedded_with": encoder, "image_problem": problem}
    tasks.embedded(store, 1, [{"task_id": n, "text": f"text {n}", "text_hash": f"h{n}", **outcome} for n in ids])


def seen_by_a_round(store: Store) -> tuple[list[int], list[int]]:
    """Labelled tasks and pool."""
    rows = tasks.vector_rows(store, 1, "e")
    labelled, pool = ([r.task_id for r in rows if r.label_kind == kind] for kind in ("label", "none"))
    return labelled, pool


def next_tasks(store: Store, limit: int = 100, encoder: str = "e") -> list[int]:
    return sorted(task.task_id for task in tasks.to_embed(store, 1, encoder, limit))


def test_tasks_that_are_tried_again_stay_in_training_set_and_pool_until_the_new_outcome(store: Store) -> None:
    embedded(store, range(1, 11), problem="404")
    tasks.label(store, 1, [tasks.Labelling(n, "label", ["a"]) for n in range(1, 6)])
    before = seen_by_a_round(store), tasks.counts(store, 1, "e")
    assert before[0] == ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert next_tasks(store) == []
    assert tasks.retry_problems(store, 1) == 10
    assert next_tasks(store) == list(range(1, 11))
    assert (seen_by_a_round(store), tasks.counts(store, 1, "e")) == before


def test_what_was_tried_again_is_through_readable_or_not(store: Store) -> None:
    embedded(store, [1, 2], problem="404")
    tasks.retry_problems(store, 1)
    embedded(store, [1], problem="404")
    embedded(store, [2])
    assert next_tasks(store) == []
    assert [task_id for task_id, _, _ in tasks.problems(store, 1)] == [1]
    assert tasks.count_unreadable(store, 1) == 1
    assert tasks.retry_problems(store, 1) == 1  # the next day


def test_new_tasks_come_before_those_that_are_tried_again_and_never_wait_in_one_chunk_with_them(store: Store) -> None:
    embedded(store, range(1, 11), problem="404")
    tasks.retry_problems(store, 1)
    tasks.remember(store, 1, [tasks.Inputs(n, "", f"new {n}") for n in (50, 51)])
    assert next_tasks(store) == [50, 51]
    tasks.embedded(
        store, 1, [{"task_id": n, "image": "", "text": f"new {n}", "embedded_with": "e"} for n in (50, 51)]
    )
    assert next_tasks(store) == list(range(1, 11))
    assert len(next_tasks(store, limit=3)) == 3


def test_a_task_that_was_deleted_is_neither_tried_again_nor_counted(store: Store) -> None:
    embedded(store, [1, 2], problem="404")
    tasks.drop(store, 1, [1])
    assert tasks.retry_problems(store, 1) == 1
    assert next_tasks(store) == [2]
    tasks.drop(store, 1, [2])
    assert next_tasks(store) == []
    assert tasks.count_unreadable(store, 1) == 0


def test_whatever_a_task_was_embedded_with_the_order_of_the_draw_holds(store: Store) -> None:
    embedded(store, range(1, 31), encoder="d")
    embedded(store, range(31, 61), encoder="f")
    tasks.remember(store, 1, [tasks.Inputs(n, "", f"text {n}") for n in range(61, 91)])
    embedded(store, range(91, 100))
    drawn = tasks.to_embed(store, 1, "e", 200)
    assert sorted(task.task_id for task in drawn) == list(range(1, 91))
    assert [task.embed_order for task in drawn] == sorted(task.embed_order for task in drawn)
    assert [task.task_id for task in tasks.to_embed(store, 1, "e", 7)] == [task.task_id for task in drawn[:7]]


def test_items_that_are_tried_again_stay_in_the_catalogue_until_the_new_outcome(store: Store) -> None:
    catalogue.add(store, 2, [catalogue.NewItem(name, "image", f"http://gone/{name}") for name in "ab"])
    first, second = sorted(catalogue.to_embed(store, 2, "e", 10), key=lambda item: item.number)
    outcome = {first.number: (first.content, "", "404"), second.number: (second.content, "h", "")}
    catalogue.embedded(store, 2, "e", outcome)
    before = catalogue.held(store, 2, "e"), catalogue.vector_rows(store, 2, "e"), catalogue.counts(store, 2, "e")
    assert catalogue.retry_problems(store, 2) == 1
    assert [item.number for item in catalogue.to_embed(store, 2, "e", 10)] == [first.number]
    now = catalogue.held(store, 2, "e"), catalogue.vector_rows(store, 2, "e"), catalogue.counts(store, 2, "e")
    assert now == before
    assert now[2] == {"image": {"pool": 2, "embedded": 2, "unreadable": 1}}
    catalogue.add(store, 2, [catalogue.NewItem("c", "text", "words")])
    assert [item.item_id for item in catalogue.to_embed(store, 2, "e", 10)] == ["c"]
    catalogue.embedded(store, 2, "e", {3: ("words", "t", ""), first.number: (first.content, "", "404")})
    assert catalogue.to_embed(store, 2, "e", 10) == []


def test_what_is_tried_again_while_its_host_is_down_waits_for_the_pause_like_others(store: Store) -> None:
    embedded(store, [1], problem="404")
    catalogue.add(store, 1, [catalogue.NewItem("a", "image", DEAD)])
    catalogue.embedded(store, 1, "e", {1: (DEAD, "", "404")})
    tasks.retry_problems(store, 1)
    catalogue.retry_problems(store, 1)
    late = {"task_id": 1, "image": DEAD, "text": "text 1", "image_problem": "503", "embed_order": DEFERRED + 0.5}
    tasks.embedded(store, 1, [late])
    catalogue.defer(store, 1, {1: (DEAD, "503")})
    assert tasks.to_embed(store, 1, "e", 10) == catalogue.to_embed(store, 1, "e", 10) == []
    assert [task.task_id for task in tasks.deferred(store, 1, 10)] == [1]
    assert [item.number for item in catalogue.deferred(store, 1, 10)] == [1]
    assert (tasks.to_try_again(store, 1), tasks.waiting_for_images(store, 1, "e")) == (1, 0)
    tasks.retry_problems(store, 1)
    catalogue.retry_problems(store, 1)
    assert tasks.to_embed(store, 1, "e", 10) == catalogue.to_embed(store, 1, "e", 10) == []
    assert seen_by_a_round(store) == ([], [1])


def test_a_store_of_the_version_before_keeps_its_rows_and_their_vectors(settings: Settings) -> None:
    blank: dict[type, Any] = {str: "", int: 0, float: 0.0, bool: False}
    old, config = connect(settings), Config()
    faults.prepare(old, settings.data_dir)
    config.set_main_option("script_location", str(faults.MIGRATIONS))

    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")

        def put(table: str, **given: Any) -> None:
            columns = Table(table, MetaData(), autoload_with=connection)
            row = {column.name: blank.get(column.type.python_type, []) for column in columns.columns}
            connection.execute(insert(columns), row | given)

        put("projects", id=1, state="attached", original={}, options={})
        done = {"project_id": 1, "embedded_with": "e", "text_hash": "h"}
        put("tasks", **done, task_id=1, label_kind="label", label=["a"], image_problem="404")
        put("tasks", **done, task_id=2, label_kind="none")
        put("tasks", **done | {"embedded_with": ""}, task_id=3, label_kind="none", image_problem="404")
        item = {"project_id": 1, "modality": "image", "state": "pool", "embedded_with": "e"}
        put("catalogue", **item, number=1, item_id="a", problem="404")
        put("answers", project_id=1, annotation_id=7, task_id=1, choices=["a"], was_cancelled=False)
        put("answers", project_id=1, annotation_id=8, task_id=2, was_cancelled=True)
    old.dispose()

    store = open_store(settings)
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert seen_by_a_round(store) == ([1], [2])
    assert next_tasks(store) == [3]
    assert tasks.count_answers(store, 1) == (1, 1)
    assert catalogue.to_embed(store, 1, "e", 10) == []
    assert (tasks.retry_problems(store, 1), catalogue.retry_problems(store, 1)) == (2, 1)
    assert tasks.remember(store, 1, [tasks.Inputs(9, "", "new")]) == 1
    assert seen_by_a_round(store) == ([1], [2])
    store.engine.dispose()


@contextmanager
def plans_of(store: Store) -> Iterator[list[str]]:
    """How SQLite finds what is asked for in the block, statement by statement."""
    plans: list[str] = []

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" / ".join(row[3] for row in cursor.fetchall()))

    event.listen(store.engine, "before_cursor_execute", explain)
    yield plans
    event.remove(store.engine, "before_cursor_execute", explain)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Settings(data_dir=tmp_path))
    projects.remember(opened, 1, state="attached")
    yield opened
    opened.engine.dispose()


def test_tasks_are_counted_without_reading_one(on_sqlite: Store) -> None:
    """After every look and every chunk: with texts and pictures in the rows it took longer than both."""
    with plans_of(on_sqlite) as plans:
        tasks.counts(on_sqlite, 1, "e")
        tasks.count_answers(on_sqlite, 1)
    assert [plan.split(" (")[0] for plan in plans] == [
        "SEARCH tasks USING COVERING INDEX tasks_by_label",
        "SEARCH answers USING COVERING INDEX answers_by_kind",
    ]
    assert "TEMP B-TREE" not in plans[0]


def test_what_comes_next_is_found_without_looking_at_what_is_done(on_sqlite: Store) -> None:
    embedded(on_sqlite, [1], encoder="d")
    catalogue.add(on_sqlite, 1, [catalogue.NewItem("a", "text", "words")])
    with plans_of(on_sqlite) as plans:
        for encoder in "de":
            tasks.to_embed(on_sqlite, 1, encoder, 10)
            tasks.waiting_for_images(on_sqlite, 1, encoder)
        catalogue.to_embed(on_sqlite, 1, "", 10)
        catalogue.to_embed(on_sqlite, 1, "e", 10)
        tasks.deferred(on_sqlite, 1, 10)
        tasks.to_try_again(on_sqlite, 1)
        catalogue.deferred(on_sqlite, 1, 10)
    of_tasks, of_items = (
        "SEARCH tasks USING {} (project_id=? AND deleted=?",
        "SEARCH catalogue USING {} (project_id=?",
    )
    expected = set()
    for table, of in (("tasks", of_tasks), ("catalogue", of_items)):
        found, counted = of.format(f"INDEX {table}_to_embed"), of.format(f"COVERING INDEX {table}_to_embed")
        expected |= {counted + ")", counted + " AND embedded_with>?)"}
        expected |= {f"{found} AND embedded_with=? AND embed_order{side}?)" for side in "<>"}
        expected |= {of.format(f"INDEX {table}_unreadable") + " AND embed_again=? AND embed_order<?)"}
    expected |= {of_tasks.format("COVERING INDEX tasks_to_embed") + " AND embedded_with=? AND embed_order>?)"}
    assert set(plans) == expected


def test_unreadable_tasks_are_counted_among_themselves(on_sqlite: Store) -> None:
    with plans_of(on_sqlite) as plans:
        tasks.count_unreadable(on_sqlite, 1)
        tasks.problems(on_sqlite, 1)
    assert all("tasks_unreadable" in plan for plan in plans)
