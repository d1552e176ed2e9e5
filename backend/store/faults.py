"""What goes wrong with the store's files, in words: damage, and no space left.

Nothing here repairs or overwrites: a damaged store stays as it is until somebody restores a backup, and the
processes that use it go on by themselves afterwards.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, inspect
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError

from backend.errors import StoreDamaged, StoreError, StoreFull, StoreTooNew, StoreUnreachable

MIGRATIONS = Path(__file__).parent / "migrations"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Only ENOSPC while writing a page is SQLITE_FULL. A quota, and a shared memory file that cannot grow, are these.
NOT_WRITTEN = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_SHMSIZE)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
# The same by PostgreSQL's codes: disk_full; data_corrupted, index_corrupted.
FULL_STATES, DAMAGED_STATES = ("53100",), ("XX001", "XX002")
# Connections that break or are refused: class 08, too many, shut down, starting up, wrong password or database.
UNREACHABLE_STATES = ("08", "53300", "57P", "28", "3D000")
ADDRESS_FORM = "postgresql://USER:PASSWORD@HOST:5432/DATABASE, or leave it empty for SQLite in MMAL_DATA_DIR"
FOLDERS = ("vectors", "heads")
UNFINISHED_RESTORE = "restore-unfinished"
REMEDY = (
    "It is left as it is. Put a backup back with `mmal restore FILE --replace`, which moves it aside; without one see"
    ' docs/operations.md, "The store is damaged".'
)


def watch(engine: Engine, data_dir: Path) -> None:
    """Have every failure of the database that means damage or a full disk told in words."""

    def translate(context: ExceptionContext) -> None:
        found = explain(context.original_exception, data_dir) or _unreachable(context, engine)
        if found is not None:
            raise found from context.original_exception

    event.listen(engine, "handle_error", translate)
    path = sqlite_file(engine)
    if path is not None:
        _watch_file(engine, path, data_dir)


def explain(error: BaseException, data_dir: Path) -> StoreError | None:
    """The failure as one of ours where it means damage or a full disk."""
    code, state = getattr(error, "sqlite_errorcode", None), getattr(error, "sqlstate", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code in NOT_WRITTEN or state in FULL_STATES:
        return _no_space(data_dir, error)
    if primary in DAMAGED or state in DAMAGED_STATES:
        return StoreDamaged(f"The store below MMAL_DATA_DIR = {data_dir} cannot be read: {error}. {REMEDY}")
    return None


def _unreachable(context: ExceptionContext, engine: Engine) -> StoreUnreachable | None:
    """The failure as one of ours where it is PostgreSQL's connection that failed."""
    error = context.original_exception
    state = getattr(error, "sqlstate", None) or ""
    without_state = not state and context.dialect.name == "postgresql" and "Operational" in type(error).__name__
    if not (without_state or context.is_disconnect or state.startswith(UNREACHABLE_STATES)):
        return None
    reason = " ".join(str(error).split()) or type(error).__name__
    return StoreUnreachable(
        f"The store {engine.url.render_as_string(hide_password=True)} cannot be reached: {reason}. Start it, or set"
        f" MMAL_DATABASE_URL right: {ADDRESS_FORM}. Answers stay in Label Studio, and the work goes on by itself"
        " once it answers."
    )


@contextmanager
def space_needed(data_dir: Path) -> Iterator[None]:
    """A full disk while a file is written is told in words; anything else passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise _no_space(data_dir, error) from error


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database; None for other databases and for one in memory."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


def sqlite_files(path: Path) -> list[Path]:
    """All that an SQLite database lies in, there or not: its file, and what SQLite keeps beside it."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


def refuse_unfinished(data_dir: Path) -> None:
    """Refuse a folder in which a restore was cut off: its files belong to two stores."""
    if (data_dir / UNFINISHED_RESTORE).exists():
        raise StoreDamaged(
            f"A restore into MMAL_DATA_DIR = {data_dir} was cut off. Run `mmal restore FILE --replace` again."
        )


def prepare(engine: Engine, data_dir: Path) -> None:
    """Make an SQLite file where a store begins; called before the migrations.

    Raises
    ------
    StoreTooNew
        A later version has changed the tables.
    StoreDamaged
        A restore was cut off; there are vectors that a lost database counted, which a new one would overwrite, for it
        counts from zero; or the log of a lost database is left.
    """
    refuse_unfinished(data_dir)
    path = sqlite_file(engine)
    # An empty file is an empty database to SQLite, which would write its header into it.
    begun = path is None or (path.exists() and path.stat().st_size > 0)
    if begun and inspect(engine).has_table("alembic_version"):
        _refuse_newer(engine)
        return
    if any(file_names(data_dir)):
        raise StoreDamaged(
            f"MMAL_DATA_DIR = {data_dir} holds vectors or heads, but the database {path or engine.url} is missing or"
            f" empty. {REMEDY} To begin anew on purpose, remove the folders {' and '.join(FOLDERS)}."
        )
    if path is not None:
        _refuse_log_alone(path)
        path.touch()


def known_schemas() -> set[str]:
    """The states of the tables that this version can bring up to date."""
    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def _refuse_newer(engine: Engine) -> None:
    with engine.connect().execution_options(writes=False) as connection:
        schema = MigrationContext.configure(connection).get_current_revision()
    if schema is not None and schema not in known_schemas():
        raise StoreTooNew(
            f"The tables of the store are at {schema!r}, which this version does not know: a later one has changed"
            ' them. Start that version, or restore a backup of before the upgrade (docs/operations.md, "Upgrades").'
        )


def _refuse_log_alone(path: Path) -> None:
    """SQLite would delete the log of a lost database, which may be all there is of it."""
    _, log, *_ = sqlite_files(path)
    lost = not path.exists() or path.stat().st_size == 0
    if lost and log.exists() and log.stat().st_size > 0:
        raise StoreDamaged(
            f"The database {path} is missing or empty, but its log {log.name} is there. {REMEDY} To begin anew on"
            f" purpose, remove {log.name}."
        )


def file_names(data_dir: Path) -> Iterator[str]:
    """Vectors and heads beside the database, relative to the folder."""
    for folder in FOLDERS:
        for path in sorted((data_dir / folder).rglob("*")):
            if path.is_file() and path.suffix in (".f16", ".safetensors"):
                yield path.relative_to(data_dir).as_posix()


def check(engine: Engine) -> None:
    """Look for damage in every table of an SQLite file; other databases watch over themselves.

    By a connection of its own: those in use hold pages in memory and do not see what became of them on disk.

    Raises
    ------
    StoreDamaged
        Naming the first fault found.
    """
    path = sqlite_file(engine)
    if path is None:
        return
    try:
        with closing(sqlite3.connect(_read_write(path), uri=True, timeout=30)) as connection:
            [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise explain(error, path.parent) or error from error
    if path.stat().st_size == 0:
        found = "the file is empty"
    if found != "ok":
        raise StoreDamaged(f"The store {path} is damaged: {found}. {REMEDY}")


def _watch_file(engine: Engine, path: Path, data_dir: Path) -> None:
    def connect(dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        # Never made here: while a restore exchanges the files, a new empty one in its place would be taken for it.
        refuse_unfinished(data_dir)
        arguments[0] = _read_write(path)
        options["uri"] = True

    def note_file(connection: Any, record: Any) -> None:
        record.info["file"] = _identity(path)

    def same_file(connection: Any, record: Any, proxy: Any) -> None:
        # A restore puts another file in its place; a connection to the old one would write into the past.
        if record.info.get("file") != _identity(path):
            raise DisconnectionError("the store was restored")

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", note_file)
    event.listen(engine, "checkout", same_file)


def _read_write(path: Path) -> str:
    """The address that opens the file and never makes it."""
    return f"file:{quote(str(path.resolve()))}?mode=rw"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _no_space(data_dir: Path, error: BaseException) -> StoreFull:
    return StoreFull(
        f"No space is left for MMAL_DATA_DIR = {data_dir} ({error}). Free some, or move the folder to a larger disk;"
        " answers stay in Label Studio, and the work goes on by itself once there is space."
    )
