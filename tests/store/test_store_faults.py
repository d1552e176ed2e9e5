"""A damaged store and a full disk are told in words; nothing is overwritten, and the work goes on afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, event, select, text

from backend.errors import StoreDamaged, StoreFull, StoreTooNew
from backend.rounds.services import services_in_time
from backend.settings import Settings
from backend.store import Store, faults, open_store, projects, rounds, tasks
from backend.store.tables import Vector
from backend.store.vectors import VectorStore
from tests.store.file_faults import DAMAGES, cut_to_nothing, full_disk, overwrite_header

DIMS = {"text": 64}


def rows_of(store: Store, contents: str) -> np.ndarray:
    """Where the text vectors of these contents lie, in their order."""
    with store.reading() as session:
        found = dict(session.execute(select(Vector.content_hash, Vector.row)).all())
    return np.array([found[content] for content in contents])


def fill(store: Store, first: int = 1, count: int = 400) -> None:
    """Enough rows for many pages, and vectors beside them."""
    projects.remember(store, 1, state="attached", title="Adverts")
    tasks.remember(store, 1, [tasks.Inputs(n, "x" * 200, "y" * 200) for n in range(first, first + count)])
    vectors = np.ones((count, DIMS["text"]), np.float32)
    VectorStore(store, "e", DIMS).append("text", [f"h{n}" for n in range(first, first + count)], vectors)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of a store that was used and closed."""
    store = open_store(Settings(data_dir=tmp_path))
    fill(store)
    store.engine.dispose()
    return tmp_path / "mmal.sqlite3"


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_damaged_store_is_refused_with_the_remedy_and_left_as_it_is(
    database: Path, damage: Callable[[Path], None]
) -> None:
    damage(database)
    left = database.read_bytes() if database.exists() else None
    [file] = (database.parent / "vectors" / "e").glob("text*.f16")
    vectors = file.read_bytes()
    with pytest.raises(StoreDamaged, match="mmal restore FILE --replace"):
        faults.check(open_store(Settings(data_dir=database.parent)).engine)
    assert (database.read_bytes() if database.exists() else None) == left
    assert file.read_bytes() == vectors


# An open connection does not read the header again.
@pytest.mark.parametrize("damage", [*DAMAGES[1:], Path.unlink])
def test_damage_while_it_is_open_is_told_at_the_next_look(database: Path, damage: Callable[[Path], None]) -> None:
    store = open_store(Settings(data_dir=database.parent))
    assert projects.get(store, 1).title == "Adverts"
    damage(database)
    with pytest.raises(StoreDamaged, match="MMAL_DATA_DIR"):
        tasks.live_ids(store, 1)


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_check_sees_damage_that_pages_in_memory_hide(database: Path, damage: Callable[[Path], None]) -> None:
    store = open_store(Settings(data_dir=database.parent))
    faults.check(store.engine)
    assert len(tasks.live_ids(store, 1)) == 400
    damage(database)
    with pytest.raises(StoreDamaged):
        faults.check(store.engine)


def test_a_folder_with_an_unfinished_restore_is_refused(database: Path) -> None:
    (database.parent / faults.UNFINISHED_RESTORE).touch()
    with pytest.raises(StoreDamaged, match="cut off"):
        open_store(Settings(data_dir=database.parent))


@pytest.mark.parametrize("lose", [Path.unlink, cut_to_nothing])
def test_the_log_of_a_lost_database_is_kept(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    projects.remember(store, 1, title="Adverts")
    log = tmp_path / "mmal.sqlite3-wal"
    left = log.read_bytes()
    lose(tmp_path / "mmal.sqlite3")
    with pytest.raises(StoreDamaged, match=r"its log mmal\.sqlite3-wal is there"):
        open_store(Settings(data_dir=tmp_path))
    assert log.read_bytes() == left


def test_tables_of_a_later_version_are_refused_in_words_and_left_as_they_are(database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreTooNew, match=r"'9999'.*Upgrades"):
        open_store(Settings(data_dir=database.parent))


def test_a_process_goes_on_with_the_file_that_a_restore_put_in_place(database: Path) -> None:
    store = open_store(Settings(data_dir=database.parent))
    assert len(tasks.live_ids(store, 1)) == 400
    other = open_store(Settings(data_dir=database.parent / "other"))
    projects.remember(other, 1, title="restored")
    other.engine.dispose()
    (database.parent / "other" / "mmal.sqlite3").replace(database)
    assert projects.get(store, 1).title == "restored"


def test_the_worker_waits_for_a_store_that_cannot_be_opened_and_says_why(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = database.read_bytes()
    overwrite_header(database)
    found = []
    waiting = threading.Thread(target=lambda: found.append(services_in_time(Settings(data_dir=database.parent))))
    with caplog.at_level(logging.ERROR):
        waiting.start()
        while "StoreDamaged; tried again" not in caplog.text:
            assert waiting.is_alive()
        database.write_bytes(sound)
        waiting.join()
    assert projects.get(found[0].store, 1).title == "Adverts"


def test_with_no_space_for_the_database_nothing_is_lost_and_later_writes_go_through(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    fill(store)
    largest = max(path.stat().st_size for path in tmp_path.glob("mmal.sqlite3*"))
    with full_disk(largest + 8192), pytest.raises(StoreFull, match="No space is left for MMAL_DATA_DIR"):
        fill(store, first=1000, count=5000)
    assert len(tasks.live_ids(store, 1)) == 400
    fill(store, first=1000, count=5000)
    assert len(tasks.live_ids(store, 1)) == 5400
    faults.check(store.engine)


def test_what_sqlite_itself_calls_full_is_told_the_same_way(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    store.engine.dispose()
    event.listen(store.engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreFull, match="full"):
        fill(store)


def test_vectors_that_found_no_space_are_appended_again_later(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    vectors, rows = VectorStore(store, "e", DIMS), np.arange(640, dtype=np.float32).reshape(10, 64)
    vectors.append("text", ["a"], rows[:1])
    with full_disk(300), pytest.raises(StoreFull):
        vectors.append("text", list("bcdefghij"), rows[1:])
    assert vectors.known("text", "abcdefghij") == {"a"}
    vectors.append("text", list("bcdefghij"), rows[1:])
    np.testing.assert_array_equal(vectors.gather("text", rows_of(store, "abcdefghij")), rows.astype(np.float16))


def test_a_head_that_found_no_space_leaves_no_draft_and_the_heads_before_it(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    fields = {"trigger": "", "strategy": "auto", "options": {}, "seed": 0}
    kept = rounds.save_head(store, rounds.start(store, 1, number=1, version="v1", **fields), {"w": np.ones(9)}, {})
    opened = rounds.start(store, 1, number=2, version="v2", **fields)
    with full_disk(1000), pytest.raises(StoreFull):
        rounds.save_head(store, opened, {"w": np.ones(9000)}, {})
    assert list(kept.parent.iterdir()) == [kept]
