"""A backup of SQLite restored into PostgreSQL is the same store, and goes on there; so is the way back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text

from backend.errors import StoreNotEmpty, StoreTooNew
from backend.settings import Settings
from backend.store import Store, events, open_store, projects, restore, rounds, tasks
from backend.store.backup import back_up
from backend.store.tables import Event, Vector
from backend.store.vectors import VectorStore
from tests.store.filled_store import DIMS, content, files, fill, rows
from tests.team_servers import shared_postgres


@dataclass
class Move:
    """A filled store, an archive of it, and where it is to go."""

    source: Store
    archive: Path
    there: Settings
    back: Settings


@pytest.fixture(params=["SQLite to PostgreSQL", "PostgreSQL to SQLite"])
def move(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Move]:
    on_sqlite = Settings(data_dir=tmp_path / "sqlite")
    on_postgresql = Settings(data_dir=tmp_path / "postgresql", database_url=shared_postgres().new_database())
    here, there = (on_sqlite, on_postgresql) if request.param.startswith("SQLite") else (on_postgresql, on_sqlite)
    source = open_store(here)
    fill(source)
    back_up(source, tmp_path / "backup.tar.gz")
    yield Move(source, tmp_path / "backup.tar.gz", there, here)
    source.engine.dispose()


def numbers_given(store: Store) -> tuple[int, list[int]]:
    """The number of a new round, and those of all events after a new one."""
    opened = rounds.start(store, 1, number=2, version="v2-auto", trigger="", strategy="auto", options={}, seed=0)
    events.add(store, 1, "ANNOTATION_UPDATED")
    with store.reading() as session:
        return opened.id, list(session.scalars(select(Event.id).order_by(Event.id)))


def vector_of(store: Store, *contents: str) -> list[float]:
    """The first number of the vector of each content."""
    with store.reading() as session:
        found = dict(session.execute(select(Vector.content_hash, Vector.row)).all())
    places = np.array([found[name] for name in contents])
    return [float(row[0]) for row in VectorStore(store, "e", DIMS).gather("text", places)]


def test_every_row_and_file_is_moved_and_can_be_moved_back(move: Move, tmp_path: Path) -> None:
    saved = rows(move.source), files(move.source)
    assert all(found for found in saved[0].values()), "a table without rows proves nothing"
    restore.restore(move.there, move.archive)
    moved = open_store(move.there)
    assert (rows(moved), files(moved)) == saved
    back_up(moved, tmp_path / "and back.tar.gz")
    moved.engine.dispose()
    restore.restore(move.back, tmp_path / "and back.tar.gz", replace=True)
    assert (rows(move.source), files(move.source)) == saved


def test_a_moved_store_gives_new_rows_fresh_numbers_and_goes_on_appending_vectors(move: Move) -> None:
    restore.restore(move.there, move.archive)
    moved = open_store(move.there)
    assert numbers_given(moved) == (2, [1, 2])
    VectorStore(moved, "e", DIMS).append("text", ["text 3", "new"], np.vstack([content(9), content(77)]))
    assert vector_of(moved, "text 3", "new", "text 19") == [3.0, 77.0, 19.0]
    moved.engine.dispose()


def test_a_store_moves_within_its_folder_and_what_was_there_is_kept_as_a_whole(move: Move) -> None:
    saved = rows(move.source), files(move.source)
    there = move.there.model_copy(update={"data_dir": move.back.data_dir})
    with pytest.raises(StoreNotEmpty, match="--replace"):
        restore.restore(there, move.archive)
    assert (rows(move.source), files(move.source)) == saved
    move.source.engine.dispose()
    _, aside = restore.restore(there, move.archive, replace=True)
    moved = open_store(there)
    assert (rows(moved), files(moved)) == saved
    moved.engine.dispose()
    assert aside is not None
    kept = open_store(move.back.model_copy(update={"data_dir": aside}))
    assert (rows(kept), files(kept)) == saved
    kept.engine.dispose()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Settings, Store]]:
    """A store that is in use, on PostgreSQL."""
    settings = Settings(data_dir=tmp_path / "shared", database_url=shared_postgres().new_database())
    store = open_store(settings)
    fill(store)
    projects.remember(store, 3, title="since the backup")
    yield settings, store
    store.engine.dispose()


def run(store: Store, *statements: str) -> None:
    with store.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_the_tables_that_are_replaced_on_a_database_server_are_kept_as_a_backup(
    move: Move, shared: tuple[Settings, Store], tmp_path: Path
) -> None:
    settings, store = shared
    saved = rows(store), files(store)
    _, aside = restore.restore(settings, move.archive, replace=True)
    assert rows(store) == rows(move.source)
    assert aside is not None
    before = Settings(data_dir=tmp_path / "before")
    restore.restore(before, aside / "before.tar.gz")
    kept = open_store(before)
    assert (rows(kept), files(kept)) == saved
    assert files(Store(kept.engine, aside)) == saved[1]


def test_a_restore_that_was_cut_off_and_is_repeated_still_keeps_what_it_replaced(
    move: Move, shared: tuple[Settings, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = shared
    saved = rows(store)

    def refuse(source: Path, target: Path) -> None:
        if source.name == "vectors":
            raise OSError("the folder is a mount point")
        source.rename(target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="mount point"):
        patched.setattr(shutil, "move", refuse)
        restore.restore(settings, move.archive, replace=True)
    restore.restore(settings, move.archive, replace=True)
    assert rows(store) == rows(move.source)
    [archive] = settings.data_dir.glob("replaced-*/before.tar.gz")
    before = Settings(data_dir=tmp_path / "before")
    restore.restore(before, archive)
    kept = open_store(before)
    assert rows(kept) == saved
    kept.engine.dispose()


def test_a_restore_touches_no_table_of_another_program_in_the_same_database(
    move: Move, shared: tuple[Settings, Store]
) -> None:
    settings, store = shared
    run(store, "CREATE TABLE task (id integer PRIMARY KEY)", "INSERT INTO task VALUES (7)")
    restore.restore(settings, move.archive, replace=True)
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM task")).all() == [(7,)]


def test_tables_of_a_later_version_are_left_to_it_on_a_database_server(
    move: Move, shared: tuple[Settings, Store]
) -> None:
    """Which of them that version made cannot be known."""
    settings, store = shared
    saved = rows(store), files(store)
    run(store, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match="name an empty database in MMAL_DATABASE_URL"):
        restore.restore(settings, move.archive, replace=True)
    assert (rows(store), files(store)) == saved
    fresh = settings.model_copy(update={"database_url": shared_postgres().new_database()})
    restore.restore(fresh, move.archive, replace=True)
    moved = open_store(fresh)
    assert (rows(moved), files(moved)) == (rows(move.source), files(move.source))
    moved.engine.dispose()


def test_a_text_with_a_nul_moves_to_postgresql_and_is_not_taken_for_a_change_there(tmp_path: Path) -> None:
    odd = [tasks.Inputs(1, "picture", "nul \0 inside")]
    source = open_store(Settings(data_dir=tmp_path / "sqlite"))
    tasks.remember(source, 1, odd)
    tasks.label(source, 1, [tasks.Labelling(1, "label", ["a\0b"], [{"annotation_id": 5, "task_id": 1}])])
    back_up(source, tmp_path / "odd.tar.gz")
    there = Settings(data_dir=tmp_path / "postgresql", database_url=shared_postgres().new_database())
    restore.restore(there, tmp_path / "odd.tar.gz")
    moved = open_store(there)
    assert tasks.remember(moved, 1, odd) == 0
    [task] = tasks.to_embed(moved, 1, "e", 10)
    assert task.text == "nul \ufffd inside"
    moved.engine.dispose()
