"""The queue that carries jobs to the threads of workers: Redis for many hosts, else one of this machine's own.

It holds nothing that must not be lost: what has to be done is read from the store at every pulse.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from huey import Huey, MemoryHuey
from huey.serializer import Serializer
from huey.storage import SqliteStorage

from backend.errors import MmalError, QueueAddressInvalid, QueueDamaged, QueueUnreachable, StoreFull
from backend.settings import Settings, without_credentials
from backend.store import faults, notes

if TYPE_CHECKING:
    from backend.rounds.services import Services

log = logging.getLogger(__name__)

# Another process holds the file for longer than is waited: that says nothing against a file that could be opened. One
# that was cut to nothing beside its log can not, and is locked for ever.
LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
ADDRESS_FORM = "redis://:PASSWORD@HOST:6379/0, or leave it empty"
SOCKET_SECONDS = 10


def open_queue(services: Services, serializer: Serializer) -> Huey:
    """The queue of these settings.

    Raises
    ------
    QueueAddressInvalid
    QueueDamaged
        Its file cannot be used, and not be removed either.
    """
    settings = services.settings
    if settings.queue_url:
        return _redis_queue(services, serializer)
    if services.store.engine.dialect.name == "sqlite":
        return _file_queue(settings.data_dir / "jobs.sqlite3", serializer)
    # The data folder may be shared by hosts, and SQLite over a network breaks: each worker carries its own jobs.
    return MemoryHuey("mmal", results=False, serializer=serializer)


class _FileStorage(SqliteStorage):
    """Huey's SQLite file, which is thrown away as soon as it cannot be used: no job in it is needed.

    Raises
    ------
    QueueDamaged
        The next call works on a new file.
    StoreFull
    """

    _conn: sqlite3.Connection | None

    def _create_connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._create_connection()
        for statement in self.ddl:
            connection.execute(statement)
        return connection

    @contextmanager
    def db(self, commit: bool = False, close: bool = False) -> Iterator[sqlite3.Cursor]:
        """A cursor; all that huey does goes through this."""
        in_use = self._conn is not None
        try:
            with super().db(commit=commit, close=close) as cursor:
                yield cursor
        except sqlite3.Error as error:
            if in_use and getattr(error, "sqlite_errorcode", 0) & 0xFF in LOCKED:
                raise
            path = Path(self.filename)
            if isinstance(full := faults.explain(error, path.parent), StoreFull):
                raise full from error
            self._discard(path, error)
            raise QueueDamaged(
                f"The job queue {path} could not be used ({error}), and a new one takes its place. Nothing is lost:"
                " its jobs are found in the store again."
            ) from error

    def _discard(self, path: Path, error: sqlite3.Error) -> None:
        # Two threads can fail together; the second then throws away a new file, which matters as little as the first.
        with self.lock:
            if self._conn is not None:
                self._conn.close()
                self._conn = None
        try:
            for file in faults.sqlite_files(path):
                file.unlink(missing_ok=True)
        except OSError as refused:
            raise QueueDamaged(
                f"The job queue {path} cannot be used ({error}), nor removed ({refused}). Stop the worker, remove"
                f" {path.name}*, and see that its user may write in {path.parent}. Nothing in it is needed."
            ) from error


def _file_queue(path: Path, serializer: Serializer) -> Huey:
    def emptied() -> Huey:
        queue = Huey("mmal", storage_class=_FileStorage, filename=str(path), results=False, serializer=serializer)
        # Jobs of a worker that ended. Those of a shared queue may be another host's.
        queue.flush()
        return queue

    try:
        return emptied()
    except QueueDamaged as damaged:
        log.warning("%s", damaged)
        return emptied()


def _redis_queue(services: Services, serializer: Serializer) -> Huey:
    address = services.settings.queue_url
    shown = without_credentials(address)
    try:
        import redis
        from huey import RedisHuey
    except ImportError:
        raise QueueAddressInvalid(
            f"MMAL_QUEUE_URL = {shown!r}, but the Redis client is not installed: pip install 'mmal-backend[team]'."
        ) from None
    try:
        pool = redis.ConnectionPool.from_url(
            address, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS, socket_keepalive=True
        )
    except ValueError:
        raise QueueAddressInvalid(
            f"MMAL_QUEUE_URL = {shown!r} is no address of a Redis. Use {ADDRESS_FORM}."
        ) from None
    # Two stores in one Redis: their projects have the same numbers and must not get each other's jobs.
    store_name = hashlib.sha256(notes.events_secret(services.store).encode()).hexdigest()[:12]
    return RedisHuey(f"mmal{store_name}", connection_pool=pool, results=False, serializer=serializer)


@contextmanager
def in_words(settings: Settings) -> Iterator[None]:
    """A Redis that fails is told as such.

    Raises
    ------
    QueueUnreachable
    """
    try:
        yield
    except _redis_errors() as error:
        shown = without_credentials(settings.queue_url)
        raise QueueUnreachable(
            f"The job queue MMAL_QUEUE_URL = {shown} cannot be reached: {error}. Start it, or set it right:"
            f" {ADDRESS_FORM}. Nothing is lost, and the work goes on by itself once it answers."
        ) from error


class OneLine(logging.Filter):
    """For the log of huey's threads: that the queue cannot be read needs no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop failures of Redis, which the pulse tells; shorten ours to their words."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, MmalError) and record.name.startswith("huey"):
            record.msg, record.args = f"{error} ({type(error).__name__})", ()
            record.exc_info = record.exc_text = None
        return not isinstance(error, _redis_errors())


def _redis_errors() -> tuple[type[Exception], ...]:
    try:
        import redis
    except ImportError:
        return ()
    return (redis.RedisError,)
