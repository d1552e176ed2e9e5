"""The queue that carries jobs to the threads of workers: Redis for many hosts, else one of this machine's own.

It holds nothing that must not be lost: what has to be done is read from the store at every pulse.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from huey import Huey, MemoryHuey, SqliteHuey
from huey.serializer import Serializer

from backend.errors import QueueAddressInvalid, QueueUnreachable
from backend.settings import Settings, without_credentials
from backend.store import notes

if TYPE_CHECKING:
    from backend.rounds.services import Services

ADDRESS_FORM = "redis://:PASSWORD@HOST:6379/0, or leave it empty"
SOCKET_SECONDS = 10


def open_queue(services: Services, serializer: Serializer) -> Huey:
    """The queue of these settings.

    Raises
    ------
    QueueAddressInvalid
    """
    settings = services.settings
    if settings.queue_url:
        return _redis_queue(services, serializer)
    if services.store.engine.dialect.name == "sqlite":
        path = settings.data_dir / "jobs.sqlite3"
        queue: Huey = SqliteHuey("mmal", filename=str(path), results=False, serializer=serializer)
    else:
        # The data folder may be shared by hosts, and SQLite over a network breaks: each worker carries its own jobs.
        queue = MemoryHuey("mmal", results=False, serializer=serializer)
    # Jobs of a worker that ended. Those of the shared queue may be another host's.
    queue.flush()
    return queue


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
    """For the log of huey's threads: that the queue cannot be read is said by the pulse, and needs no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep everything but failures of Redis."""
        return record.exc_info is None or not isinstance(record.exc_info[1], _redis_errors())


def _redis_errors() -> tuple[type[Exception], ...]:
    try:
        import redis
    except ImportError:
        return ()
    return (redis.RedisError,)
