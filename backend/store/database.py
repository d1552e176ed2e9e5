"""The store: sessions that read one snapshot, and sessions that write alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, Float, cast, extract, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from backend.settings import Settings
from backend.store import faults
from backend.store.engines import ADVISORY_LOCKS, open_engine
from backend.store.tables import Base

# SQLite allows 32,766 bound values a statement, PostgreSQL 65,535; the widest table has 15 columns.
ROWS_A_STATEMENT = 1000
# The clocks of two hosts drift apart by much less in this many seconds than any pause here is long.
CLOCK_SECONDS = 60.0


class Store:
    """The database and the folder of files beside it.

    Parameters
    ----------
    engine
        SQLAlchemy engine, migrated.
    data_dir
        Folder of vectors and heads.

    Attributes
    ----------
    leases_held
        Name and holder of the leases that threads of this process hold.
    """

    def __init__(self, engine: Engine, data_dir: Path) -> None:
        self.engine = engine
        self.data_dir = data_dir
        self._on_postgresql = engine.dialect.name == "postgresql"
        snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if self._on_postgresql else {}
        self.leases_held: set[tuple[str, str]] = set()
        self._writers = sessionmaker(engine, expire_on_commit=False)
        self._readers = sessionmaker(engine.execution_options(writes=False, **snapshot), expire_on_commit=False)
        self._clock_offset, self._clock_read = 0.0, float("-inf")

    @contextmanager
    def writing(self, project_id: int) -> Iterator[Session]:
        """A session that is this project's only writer, so that what it reads stays true until it commits.

        Commits when the block ends and rolls back when it raises. SQLite has one writer at a time anyway; on
        PostgreSQL a lock that lasts as long as the transaction keeps the project's other writers out.
        """
        with self.statement() as session:
            if self._on_postgresql:
                lock = text("SELECT pg_advisory_xact_lock(:kind, :project)")
                session.execute(lock, {"kind": ADVISORY_LOCKS, "project": project_id % 2**31})
            yield session

    @contextmanager
    def statement(self) -> Iterator[Session]:
        """A session for writes that depend on nothing read before: one statement, or rows nobody else writes.

        It waits for no `writing` of others, where the database can do that.
        """
        with self._writers.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one snapshot that waits for no writer; what it is given must not be changed."""
        with self._readers.begin() as session:
            yield session

    @property
    def now(self) -> ColumnElement[float]:
        """The database's clock, for use inside a statement: seconds since the epoch, the same for all hosts."""
        if self._on_postgresql:
            # Not now(): that is the start of the transaction, which may have waited.
            return cast(extract("epoch", func.clock_timestamp()), Float)
        return (func.julianday("now") - 2440587.5) * 86400.0

    def clock(self) -> float:
        """The database's clock; asked now and then, and kept by this host's clock in between."""
        if self._on_postgresql and time.monotonic() - self._clock_read > CLOCK_SECONDS:
            with self.reading() as session:
                self._clock_offset = float(session.scalars(select(self.now)).one()) - time.time()
            self._clock_read = time.monotonic()
        return time.time() + self._clock_offset

    def upsert(
        self, session: Session, table: type[Base], rows: Iterable[dict[str, Any]], update: Sequence[str]
    ) -> None:
        """Insert rows; where the primary key exists, overwrite the columns named in `update`."""
        insert = self.insert(table)
        keys = [column.name for column in table.__table__.primary_key]
        # PostgreSQL refuses a key that comes twice in one statement: the last one counts, as on SQLite.
        pending = list({tuple(row[key] for key in keys): row for row in rows}.values())
        for start in range(0, len(pending), ROWS_A_STATEMENT):
            statement = insert.values(pending[start : start + ROWS_A_STATEMENT])
            if update:
                changes = {name: statement.excluded[name] for name in update}
                session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
            else:
                session.execute(statement.on_conflict_do_nothing(index_elements=keys))

    def insert(self, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that can say what happens where the key exists."""
        return (postgresql.insert if self._on_postgresql else sqlite.insert)(table)


def open_store(settings: Settings) -> Store:
    """Open the store of these settings, bringing its tables up to date first.

    Raises
    ------
    StoreAddressInvalid
        MMAL_DATABASE_URL cannot be used.
    StoreError
        The store is damaged or out of reach, or the disk is full.
    """
    with faults.space_needed(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Store(open_engine(settings), settings.data_dir)
