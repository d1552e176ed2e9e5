"""Putting a backup in the place of a store: checked first, then at once, and nothing of the old one deleted."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, MetaData, create_engine, func, select, text

from backend.errors import BackupInvalid, BackupTooNew, StoreDamaged, StoreInUse, StoreNotEmpty, StoreTooNew
from backend.settings import Settings
from backend.store import faults, heartbeats, projects
from backend.store.backup import FORMAT, Manifest, back_up, read_rows, unpack
from backend.store.database import open_store
from backend.store.engines import connect
from backend.store.tables import Base

DATABASE = "database"
BEFORE = "before.tar.gz"
STAGING = ".restoring-"


def restore(settings: Settings, source: Path, *, replace: bool = False) -> tuple[Manifest, Path | None]:
    """Fill the store of these settings from an archive, bringing its tables up to date.

    Parameters
    ----------
    replace
        Although there is a store already, or what is left of one; its files are moved into a folder beside it, and
        the tables of a database server are written there as a backup.

    Returns
    -------
    tuple
        The manifest, and the folder with what was there before, or None.

    Raises
    ------
    BackupInvalid, BackupTooNew
        Nothing was changed.
    StoreNotEmpty, StoreInUse, StoreTooNew
        Nothing was changed.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    for left in settings.data_dir.glob(f"{STAGING}*"):
        shutil.rmtree(left)  # of a restore that was cut off
    occupied = _is_occupied(settings, replace)
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=settings.data_dir) as name:
        folder = Path(name)
        manifest = unpack(source, folder)
        _refuse_newer(source, manifest)
        engine = connect(settings)
        path = faults.sqlite_file(engine)
        if path is not None:
            aside = _into_file(settings, path, folder, manifest)
        else:
            aside = _into_server(settings, engine, folder, manifest, occupied)
        engine.dispose()
        (settings.data_dir / faults.UNFINISHED_RESTORE).unlink()
    if aside is not None and not occupied:
        shutil.rmtree(aside)  # tables without rows, made by looking
        aside = None
    return manifest, aside


def _into_file(settings: Settings, path: Path, folder: Path, manifest: Manifest) -> Path | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = create_engine(f"sqlite:///{folder / DATABASE}")
    with staged.begin() as connection:
        _fill(connection, folder, manifest)
    staged.dispose()
    return _exchange(settings.data_dir, folder, path)


def _into_server(settings: Settings, engine: Engine, folder: Path, manifest: Manifest, occupied: bool) -> Path | None:
    if occupied:
        with suppress(StoreDamaged):  # of tables that cannot be read nothing can be kept
            store = open_store(settings)
            back_up(store, folder / BEFORE)
            store.engine.dispose()
    with engine.begin() as connection:
        _drop_ours(connection)
        _fill(connection, folder, manifest)
        # A store that moves from SQLite leaves its file: whoever forgets the address would go on with that.
        return _exchange(settings.data_dir, folder, settings.sqlite_file)


def _is_occupied(settings: Settings, replace: bool) -> bool:
    """Whether there is a store that would be replaced, or what is left of one; refuses where that must not be."""
    try:
        store = open_store(settings)
        occupied = bool(projects.every(store)) or any(faults.file_names(settings.data_dir))
        if faults.sqlite_file(store.engine) is None:
            occupied = occupied or settings.sqlite_file.exists()
        running = heartbeats.alive(store)
        store.engine.dispose()
    except StoreTooNew as error:
        if not settings.store_url.startswith("sqlite"):
            raise StoreTooNew(
                f"{error} Which of its tables that version made is not known here, so name an empty database in"
                " MMAL_DATABASE_URL and restore into that."
            ) from error
        occupied, running, found = True, [], str(error)
    except StoreDamaged as error:
        occupied, running, found = True, [], str(error)
    else:
        found = f"There is a store already in MMAL_DATA_DIR = {settings.data_dir} or in its database."
    if running:
        raise StoreInUse(
            f"A worker is running ({', '.join(running)}): what it writes now would be lost. Stop `mmal serve` or"
            f" `mmal worker`, or wait {heartbeats.ALIVE_SECONDS:.0f} s where it was killed."
        )
    if occupied and not replace:
        raise StoreNotEmpty(
            f"{found} Restore with --replace, which moves it aside, or into another MMAL_DATA_DIR and database."
        )
    return occupied


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


def _drop_ours(connection: Connection) -> None:
    """And nothing else: the address may name a database that other programs have tables in."""
    Base.metadata.drop_all(connection)
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _exchange(data_dir: Path, folder: Path, database: Path) -> Path | None:
    """Move what is there aside and the new in; a mark stands meanwhile, so that nobody opens a half of each."""
    aside = data_dir / time.strftime("replaced-%Y%m%d-%H%M%S")
    if (folder / BEFORE).exists():
        # Before anything can be cut off: the restore that is then repeated finds no tables to make it of.
        aside.mkdir(exist_ok=True)
        shutil.move(folder / BEFORE, aside / BEFORE)
    (data_dir / faults.UNFINISHED_RESTORE).touch()
    # The database first: from here on no process can open it. Its log would otherwise be read into the new one.
    for path in (*faults.sqlite_files(database), *(data_dir / name for name in faults.FOLDERS)):
        if path.exists():
            aside.mkdir(exist_ok=True)
            shutil.move(path, aside / path.name)
    for name in faults.FOLDERS:
        if (folder / name).exists():
            (folder / name).rename(data_dir / name)
    if (folder / DATABASE).exists():
        shutil.move(folder / DATABASE, database)
    return aside if aside.exists() else None
