"""Opening the store: engine, pragmas, migrations, transactions."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from backend.settings import Settings
from backend.store import faults
from backend.store.tables import Base

# SQLite allows 32,766 bound values a statement; the widest table has 15 columns.
ROWS_A_STATEMENT = 1000


class Store:
    """The database and the folder of files beside it.

    Parameters
    ----------
    engine
        SQLAlchemy engine, migrated.
    data_dir
        Folder of vectors and heads.
    """

    def __init__(self, engine: Engine, data_dir: Path) -> None:
        self.engine = engine
        self.data_dir = data_dir
        self._writers = sessionmaker(engine, expire_on_commit=False)
        self._readers = sessionmaker(engine.execution_options(writes=False), expire_on_commit=False)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises."""
        with self._writers.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one snapshot that waits for no writer; what it is given must not be changed."""
        with self._readers.begin() as session:
            yield session

    def upsert(
        self, session: Session, table: type[Base], rows: Iterable[dict[str, Any]], update: Sequence[str]
    ) -> None:
        """Insert rows; where the primary key exists, overwrite the columns named in `update`."""
        insert = self.insert(table)
        keys = [column.name for column in table.__table__.primary_key]
        pending = list(rows)
        for start in range(0, len(pending), ROWS_A_STATEMENT):
            statement = insert.values(pending[start : start + ROWS_A_STATEMENT])
            if update:
                changes = {name: statement.excluded[name] for name in update}
                session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
            else:
                session.execute(statement.on_conflict_do_nothing(index_elements=keys))

    def insert(self, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that can say what happens where the key exists."""
        return (postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert)(table)


def open_store(settings: Settings) -> Store:
    """Open the store of these settings, bringing its tables up to date first.

    Raises
    ------
    StoreError
        It is damaged, or the disk is full.
    """
    with faults.space_needed(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        settings.store_url,
        pool_pre_ping=settings.store_url.startswith("postgresql"),
        # Errors are noted and shown; the values of a statement may hold addresses with signatures.
        hide_parameters=True,
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin_at_once)
    faults.watch(engine, settings.data_dir)
    _migrate(engine, settings.data_dir)
    return Store(engine, settings.data_dir)


def _set_pragmas(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin lazily, as a reader, and a reader that turns
    # writer under WAL can fail without waiting: _begin_at_once takes over.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_at_once(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine, data_dir: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(faults.MIGRATIONS))
    # Web and worker start together: one migrates, the other waits and finds nothing to do.
    with open(data_dir / "migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        faults.prepare(engine, data_dir)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
