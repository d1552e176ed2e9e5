"""Putting a backup in the place of a store: checked first, then at once, and nothing of the old one deleted."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine, func, make_url, select, text

from backend.errors import BackupInvalid, BackupTooNew, StoreDamaged, StoreInUse, StoreNotEmpty
from backend.settings import Settings
from backend.store import faults, heartbeats, projects
from backend.store.backup import FORMAT, Manifest, read_rows, unpack
from backend.store.database import Store, open_store

DATABASE = "database"
STAGING = ".restoring-"


def restore(settings: Settings, source: Path, *, replace: bool = False) -> tuple[Manifest, Path | None]:
    """Fill the store of these settings from an archive, bringing its tables up to date.

    Parameters
    ----------
    replace
        Although there is a store already, or what is left of one; it is moved into a folder beside it.

    Returns
    -------
    tuple
        The manifest, and the folder with what was there before, or None.

    Raises
    ------
    BackupInvalid, BackupTooNew
        Nothing was changed.
    StoreNotEmpty, StoreInUse
        Nothing was changed.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    for left in settings.data_dir.glob(f"{STAGING}*"):
        shutil.rmtree(left)  # of a restore that was cut off
    store, occupied = _what_is_there(settings, replace)
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=settings.data_dir) as name:
        folder = Path(name)
        manifest = unpack(source, folder)
        _refuse_newer(source, manifest)
        url = make_url(settings.store_url)
        if url.get_backend_name() == "sqlite":
            if store is not None:
                store.engine.dispose()
            path = Path(str(url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(f"sqlite:///{folder / DATABASE}")
            with engine.begin() as connection:
                _fill(connection, folder, manifest)
            engine.dispose()
            aside = _exchange(settings.data_dir, folder, path)
        else:
            assert store is not None, "an empty database is opened before it is filled"
            with store.engine.begin() as connection:
                _drop_all(connection)
                _fill(connection, folder, manifest)
                aside = _exchange(settings.data_dir, folder, None)
        (settings.data_dir / faults.UNFINISHED_RESTORE).unlink()
    if aside is not None and not occupied:
        shutil.rmtree(aside)  # tables without rows, made by looking
        aside = None
    return manifest, aside


def _what_is_there(settings: Settings, replace: bool) -> tuple[Store | None, bool]:
    """The store that is about to be replaced, None when it cannot be opened; whether it holds anything."""
    try:
        store = open_store(settings)
        occupied = bool(projects.every(store)) or any(faults.file_names(settings.data_dir))
        running = heartbeats.alive(store)
    except StoreDamaged as error:
        if not replace:
            raise StoreNotEmpty(f"{error} Restoring over it takes --replace.") from error
        return None, True
    if running:
        raise StoreInUse(
            f"A worker is running ({', '.join(running)}): what it writes now would be lost. Stop `mmal serve` or"
            f" `mmal worker`, or wait {heartbeats.ALIVE_SECONDS:.0f} s where it was killed."
        )
    if occupied and not replace:
        raise StoreNotEmpty(
            f"MMAL_DATA_DIR = {settings.data_dir} holds a store already. Restore with --replace, which moves it"
            " aside, or into another MMAL_DATA_DIR."
        )
    return store, occupied


def _refuse_newer(source: Path, manifest: Manifest) -> None:
    if manifest.format > FORMAT or manifest.schema not in faults.known_schemas():
        raise BackupTooNew(
            f"{source} was made by version {manifest.version} with tables {manifest.schema!r}, which this version"
            " does not know. Install that version or a later one, and restore with it."
        )


def _fill(connection: Connection, folder: Path, manifest: Manifest) -> None:
    """Tables as they were when the backup was made, its rows, then the migrations since."""
    config = Config()
    config.set_main_option("script_location", str(faults.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, manifest.schema)
    tables = MetaData()
    tables.reflect(connection)
    for table in tables.sorted_tables:
        if table.name not in manifest.tables:
            continue
        count = 0
        for rows in read_rows(folder, table.name):
            connection.execute(table.insert(), rows)
            count += len(rows)
        if count != manifest.tables[table.name]:
            raise BackupInvalid(
                f"table {table.name} has {count} rows, its manifest says {manifest.tables[table.name]}"
            )
        _count_on(connection, table.name, [column.name for column in table.primary_key])
    command.upgrade(config, "head")


def _count_on(connection: Connection, table: str, key: list[str]) -> None:
    """PostgreSQL numbers new rows by a sequence, which rows that bring their number do not move; SQLite looks."""
    if connection.dialect.name != "postgresql" or len(key) != 1:
        return
    sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :key)"), {"table": table, "key": key[0]})
    if sequence:
        highest = connection.scalar(text(f'SELECT max("{key[0]}") FROM "{table}"'))
        connection.scalar(select(func.setval(sequence, max(int(highest or 0), 1), bool(highest))))


def _drop_all(connection: Connection) -> None:
    tables = MetaData()
    tables.reflect(connection)
    tables.drop_all(connection)


def _exchange(data_dir: Path, folder: Path, database: Path | None) -> Path | None:
    """Move what is there aside and the new in; a mark stands meanwhile, so that nobody opens a half of each."""
    (data_dir / faults.UNFINISHED_RESTORE).touch()
    aside = data_dir / time.strftime("replaced-%Y%m%d-%H%M%S")
    old = [data_dir / name for name in faults.FOLDERS]
    if database is not None:
        # The database first: from here on no process can open it. Its log would otherwise be read into the new one.
        old[:0] = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    for path in old:
        if path.exists():
            aside.mkdir(exist_ok=True)
            shutil.move(path, aside / path.name)
    for name in faults.FOLDERS:
        if (folder / name).exists():
            (folder / name).rename(data_dir / name)
    if database is not None:
        shutil.move(folder / DATABASE, database)
    return aside if aside.exists() else None
