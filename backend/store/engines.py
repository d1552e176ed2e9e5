"""From the address of a store to an engine on it: SQLite or PostgreSQL, with what each needs to be safe."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from backend.errors import StoreAddressInvalid
from backend.settings import Settings
from backend.store import faults

# "mmal" in ASCII: other programs in the same database have locks of their own.
ADVISORY_LOCKS = 0x6D6D616C
# A host that stalls in the middle of a transaction is cut off after this, so that the others can go on.
STALLED_SECONDS = 60


def open_engine(settings: Settings) -> Engine:
    """An engine on the store's database, its tables brought up to date.

    Raises
    ------
    StoreAddressInvalid, StoreError
    """
    engine = connect(settings)
    on_sqlite = engine.dialect.name == "sqlite"
    with _alone_on_this_machine(settings.data_dir / "migrate.lock") if on_sqlite else nullcontext():
        faults.prepare(engine, settings.data_dir)
        _migrate(engine)
    return engine


def connect(settings: Settings) -> Engine:
    """An engine on the store's database, whatever that holds.

    Raises
    ------
    StoreAddressInvalid
    """
    address = _read_address(settings.store_url)
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address, hide_parameters=True)
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin_at_once)
    else:
        engine = _postgresql_engine(address, settings)
    faults.watch(engine, settings.data_dir)
    return engine


def _read_address(text_form: str) -> URL:
    try:
        address = make_url(text_form)
        backend = address.get_backend_name()
    except (ArgumentError, ValueError):
        # Not shown: what cannot be read may hold a password anywhere.
        raise StoreAddressInvalid(
            f"MMAL_DATABASE_URL cannot be read as an address. Use {faults.ADDRESS_FORM}."
        ) from None
    if backend == "postgres":
        backend = "postgresql"
    if backend not in ("sqlite", "postgresql"):
        raise StoreAddressInvalid(f"MMAL_DATABASE_URL begins with {backend!r}. Use {faults.ADDRESS_FORM}.")
    if backend == "postgresql" and address.drivername in ("postgres", "postgresql"):
        address = address.set(drivername="postgresql+psycopg")
    return address


def _postgresql_engine(address: URL, settings: Settings) -> Engine:
    # Web threads, or jobs with their heartbeats and the pulse; opened as they are needed.
    connections = max(settings.web_threads, 2 * settings.worker_threads) + 2
    try:
        engine = create_engine(
            address,
            # Errors are noted and shown; the values of a statement may hold addresses with signatures.
            hide_parameters=True,
            pool_size=connections,
            max_overflow=connections,
            # A server that was restarted has closed what lies in the pool.
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 10,
                "application_name": "mmal",
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "options": f"-c idle_in_transaction_session_timeout={STALLED_SECONDS}s -c lock_timeout=300s",
            },
        )
    except ImportError:
        raise StoreAddressInvalid(
            "MMAL_DATABASE_URL names PostgreSQL, whose driver is not installed: pip install 'mmal-backend[team]'"
            " (psycopg and redis)."
        ) from None
    event.listen(engine, "connect", _replace_nul)
    return engine


def _replace_nul(connection: Any, _record: Any) -> None:
    # Legal in JSON and in SQLite, refused by PostgreSQL; a task must not fail for it.
    from psycopg.types.string import StrDumper

    class Dumper(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(without_nul(obj))

    connection.adapters.register_dumper(str, Dumper)


def without_nul(words: str) -> str:
    """The text with U+0000, which PostgreSQL cannot hold, replaced by U+FFFD."""
    return words.replace("\0", "\ufffd")


def _set_pragmas(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin lazily, as a reader, and a reader that turns
    # writer under WAL can fail without waiting: _begin_at_once takes over.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_at_once(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _alone_on_this_machine(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _migrate(engine: Engine) -> None:
    """Web and worker, of one host or many, start together: one migrates, the others wait and find nothing to do."""
    config = Config()
    config.set_main_option("script_location", str(faults.MIGRATIONS))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCKS})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
