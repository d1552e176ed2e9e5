"""A backup is consistent while others write; a restore is checked, complete, and takes nothing away."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, select, text

from backend.errors import BackupInvalid, BackupTooNew, StoreDamaged, StoreInUse, StoreNotEmpty
from backend.settings import Settings
from backend.store import Store, backup, faults, heartbeats, open_store, projects, restore, rounds, tasks
from backend.store.tables import Vector
from backend.store.vectors import VectorStore
from tests.store.filled_store import DIMS, content, files, fill, rows


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def store(settings: Settings) -> Store:
    store = open_store(settings)
    fill(store)
    return store


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Path:
    backup.back_up(store, tmp_path / "backup.tar.gz")
    return tmp_path / "backup.tar.gz"


def test_what_is_restored_elsewhere_is_what_was_backed_up(store: Store, archive: Path, tmp_path: Path) -> None:
    manifest, aside = restore.restore(Settings(data_dir=tmp_path / "other"), archive)
    other = open_store(Settings(data_dir=tmp_path / "other"))
    assert aside is None
    assert rows(other) == rows(store)
    assert files(other) == files(store)
    assert manifest.tables["tasks"] == 50
    faults.check(other.engine)
    assert {path.name for path in (tmp_path / "other").iterdir()} <= {
        "mmal.sqlite3", "mmal.sqlite3-wal", "mmal.sqlite3-shm", "vectors", "heads", "migrate.lock",
    }  # fmt: skip


def test_a_restored_store_goes_on_counting_where_the_old_one_was(archive: Path, tmp_path: Path) -> None:
    restore.restore(Settings(data_dir=tmp_path / "other"), archive)
    other = open_store(Settings(data_dir=tmp_path / "other"))
    vectors = VectorStore(other, "e", DIMS)
    vectors.append("text", ["text 3", "new"], np.vstack([content(9), content(77)]))
    [(new, old)] = _numbers(other, "new", "text 3")
    assert vectors.gather("text", np.array([new, old])).tolist() == [[77] * 8, [3] * 8]
    opened = rounds.start(other, 1, number=2, version="v2-auto", trigger="", strategy="auto", options={}, seed=0)
    assert opened.id == 2


def _numbers(store: Store, *contents: str) -> list[tuple[int, ...]]:
    with store.reading() as session:
        found = dict(session.execute(select(Vector.content_hash, Vector.row)).all())
    return [tuple(found[content] for content in contents)]


def test_every_vector_that_a_backup_counts_is_in_it_while_a_worker_writes(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        vectors = VectorStore(store, "e", DIMS)
        while not stop.is_set():
            number = 100 + len(written)
            vectors.append("text", [f"text {number}"], content(number))
            tasks.remember(store, 1, [tasks.Inputs(number, "", f"text {number}")])
            written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for attempt in range(4):
            before = len(written)
            while len(written) < before + 3:
                assert writer.is_alive()
            backup.back_up(store, tmp_path / f"{attempt}.tar.gz")
    finally:
        stop.set()
        writer.join()
    for attempt in range(4):
        settings = Settings(data_dir=tmp_path / f"restored {attempt}")
        restore.restore(settings, tmp_path / f"{attempt}.tar.gz")
        other = open_store(settings)
        with other.reading() as session:
            found = dict(session.execute(select(Vector.row, Vector.content_hash)).all())
        stored = VectorStore(other, "e", DIMS).gather("text", np.array(sorted(found)))
        assert [f"text {int(row[0])}" for row in stored] == [found[number] for number in sorted(found)]
        # One snapshot: a task is remembered after its vector.
        assert {t.text for t in tasks.inputs_of(other, 1, range(100, 10_000))} <= set(found.values())


def cut_off(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])


def change_a_byte(archive: Path) -> None:
    """Of a vector, with the compression and the archive around it sound."""
    repack(archive, lambda name, data: data[:-1] + b"\x07" if name.endswith(".f16") else data)


def leave_a_file_out(archive: Path) -> None:
    repack(archive, lambda name, data: None if name.endswith(".safetensors") else data)


def leave_the_manifest_out(archive: Path) -> None:
    repack(archive, lambda name, data: None if name == backup.MANIFEST else data)


def climb_out(archive: Path) -> None:
    repack(archive, lambda name, data: data, rename=lambda name: name.replace("heads/1/", "heads/../../"))


def something_else(archive: Path) -> None:
    archive.write_bytes(b"PK\x03\x04 something else")


def repack(
    archive: Path, change: Callable[[str, bytes], bytes | None], rename: Callable[[str], str] = lambda name: name
) -> None:
    import io

    with tarfile.open(archive) as old:
        members = [(m.name, file.read()) for m in old if (file := old.extractfile(m))]
    with tarfile.open(archive, "w:gz") as new:
        for name, data in members:
            changed = change(name, data)
            if changed is not None:
                member = tarfile.TarInfo(rename(name))
                member.size = len(changed)
                new.addfile(member, io.BytesIO(changed))


@pytest.mark.parametrize(
    "damage",
    [cut_off, change_a_byte, leave_a_file_out, leave_the_manifest_out, climb_out, something_else, Path.unlink],
)
def test_a_damaged_archive_is_refused_and_the_store_stays_as_it_is(
    store: Store, archive: Path, settings: Settings, damage: Callable[[Path], None]
) -> None:
    damage(archive)
    before = rows(store), files(store)
    with pytest.raises(BackupInvalid, match=archive.name):
        restore.restore(settings, archive, replace=True)
    assert (rows(store), files(store)) == before
    assert not list(settings.data_dir.glob("replaced-*"))


def test_a_store_is_replaced_only_on_request_and_then_kept_aside(
    store: Store, archive: Path, settings: Settings
) -> None:
    saved = rows(store)
    projects.remember(store, 2, title="since then")
    with pytest.raises(StoreNotEmpty, match="--replace"):
        restore.restore(settings, archive)
    assert len(projects.every(store)) == 2
    _, aside = restore.restore(settings, archive, replace=True)
    assert rows(store) == saved
    assert aside is not None
    kept = open_store(Settings(data_dir=aside))
    assert [p.title for p in projects.every(kept)] == ["Zwölf “Adverts”", "since then"]
    assert files(kept) == files(store)


def test_a_damaged_store_is_replaced_and_processes_that_waited_go_on(
    store: Store, archive: Path, settings: Settings
) -> None:
    store.engine.dispose()
    (settings.data_dir / "mmal.sqlite3").write_bytes(b"damaged" * 4096)
    with pytest.raises(StoreDamaged):
        projects.every(store)
    with pytest.raises(StoreNotEmpty, match="--replace"):
        restore.restore(settings, archive)
    restore.restore(settings, archive, replace=True)
    assert [p.id for p in projects.every(store)] == [1]


def test_a_store_of_a_later_version_is_replaced_by_a_backup_of_before_the_upgrade(
    store: Store, archive: Path, settings: Settings
) -> None:
    saved = rows(store)
    with store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE of_the_future (id INTEGER PRIMARY KEY)"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreNotEmpty, match="--replace"):
        restore.restore(settings, archive)
    restore.restore(settings, archive, replace=True)
    assert rows(open_store(settings)) == saved


def test_a_store_whose_worker_runs_is_not_replaced(store: Store, archive: Path, settings: Settings) -> None:
    heartbeats.beat(store, "host:17", label_studio=True)
    with pytest.raises(StoreInUse, match="host:17"):
        restore.restore(settings, archive, replace=True)
    heartbeats.end(store, "host:17")
    restore.restore(settings, archive, replace=True)


def test_a_restore_that_was_cut_off_can_only_be_repeated(
    store: Store, archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = rows(store)
    store.engine.dispose()

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(Path, "rename", power_cut)
        restore.restore(settings, archive, replace=True)
    with pytest.raises(StoreDamaged, match="cut off"):
        open_store(settings)
    restore.restore(settings, archive, replace=True)
    assert rows(open_store(settings)) == saved


def test_an_archive_of_a_later_version_is_refused_with_that_version(archive: Path, tmp_path: Path) -> None:
    def from_the_future(name: str, data: bytes) -> bytes:
        return json.dumps(json.loads(data) | {"schema": "9999", "version": "7.0"}).encode()

    repack(archive, lambda name, data: from_the_future(name, data) if name == backup.MANIFEST else data)
    with pytest.raises(BackupTooNew, match=r"version 7\.0"):
        restore.restore(Settings(data_dir=tmp_path / "other"), archive)


def test_an_archive_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Written as a backup was when there was only the first migration."""
    old = create_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    config = Config()
    config.set_main_option("script_location", str(faults.MIGRATIONS))
    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO notes (name, value) VALUES ('n', '{\"a\": 1}')"))
        tables = set(inspect(connection).get_table_names()) - {"alembic_version", "leases"}
    assert "catalogue" not in tables
    folder = tmp_path / "made"
    (folder / "tables").mkdir(parents=True)
    for table in tables:
        line = '{"name": "n", "value": {"a": 1}}\n' if table == "notes" else ""
        (folder / "tables" / f"{table}.jsonl").write_text(line)
    import hashlib

    members = {f"tables/{t}.jsonl": (folder / "tables" / f"{t}.jsonl") for t in sorted(tables)}
    manifest = {
        "schema": "0001", "tables": {t: int(t == "notes") for t in tables},
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in members.items()},
    }  # fmt: skip
    (folder / backup.MANIFEST).write_text(json.dumps(manifest))
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as archive:
        for name, path in {**members, backup.MANIFEST: folder / backup.MANIFEST}.items():
            archive.add(path, name)
    restore.restore(Settings(data_dir=tmp_path / "new"), tmp_path / "old.tar.gz")
    store = open_store(Settings(data_dir=tmp_path / "new"))
    assert rows(store)["notes"] == [("n", {"a": 1})]
    assert rows(store)["catalogue"] == []


def test_a_backup_overwrites_nothing_and_leaves_no_half_behind(store: Store, archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(BackupInvalid, match="exists already"):
        backup.back_up(store, archive)
    assert archive.read_bytes() == before
    with pytest.raises(BackupInvalid, match="cannot be written"):
        backup.back_up(store, tmp_path / "no such folder" / "b.tar.gz")
    assert archive.stat().st_mode & 0o077 == 0
    store.engine.dispose()
    (store.data_dir / "mmal.sqlite3").write_bytes(b"damaged" * 4096)
    with pytest.raises(StoreDamaged):
        backup.back_up(store, tmp_path / "half.tar.gz")
    assert not list(tmp_path.glob("half*"))
