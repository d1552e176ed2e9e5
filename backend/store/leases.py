"""Leases: at most one worker runs a job; a dead holder's job is taken over.

Ages are told by the database's clock, so the clocks of the hosts need not agree.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, delete, select, update

from backend.errors import LeaseLost
from backend.store.database import Store
from backend.store.tables import Lease


class HeldLease:
    """A lease this process holds, kept alive by a heartbeat thread.

    A holder that was stopped for longer than the lease lasts finds out at its next `check`.
    """

    def __init__(self, store: Store, name: str, holder: str, seconds: float) -> None:
        self.store, self.name, self.holder, self.seconds = store, name, holder, seconds
        store.leases_held.add((name, holder))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Renew the lease.

        Raises
        ------
        LeaseLost
            When another holder has it.
        """
        with self.store.statement() as session:
            renewed = session.execute(
                update(Lease)
                .where(Lease.name == self.name, Lease.holder == self.holder)
                .values(heartbeat_at=self.store.now)
            )
        if renewed.rowcount == 0:  # type: ignore[attr-defined]
            raise LeaseLost(f"lease {self.name!r} of {self.holder} was taken over by another worker; stopping here.")

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._thread.join()
        self.store.leases_held.discard((self.name, self.holder))
        with self.store.statement() as session:
            session.execute(delete(Lease).where(Lease.name == self.name, Lease.holder == self.holder))

    def _beat(self) -> None:
        while not self._stop.wait(self.seconds / 4):
            try:
                self.check()
            except LeaseLost:
                return
            except Exception:
                # The database may be busy for a moment; the next beat or `check` decides.
                continue


def acquire(store: Store, name: str, holder: str, seconds: float) -> HeldLease | None:
    """Take the lease if it is free or its holder's heartbeat is older than `seconds`; None otherwise.

    A holder never takes it from another thread of its own, however late the heartbeat: it is alive.
    """
    if (name, holder) in store.leases_held:
        return None
    mine = store.insert(Lease).values(name=name, holder=holder, heartbeat_at=store.now)
    # One statement: of many that try at once, the database lets one through.
    take = mine.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": mine.excluded.holder, "heartbeat_at": mine.excluded.heartbeat_at},
        where=Lease.heartbeat_at <= store.now - seconds,
    )
    with store.statement() as session:
        if session.execute(take.returning(Lease.name)).first() is None:
            return None
    return HeldLease(store, name, holder, seconds)


@contextmanager
def held(store: Store, name: str, holder: str, seconds: float) -> Iterator[HeldLease | None]:
    """The lease for the length of a block, or None when another holder has it."""
    lease = acquire(store, name, holder, seconds)
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


def holder_of(store: Store, name: str, seconds: float) -> str:
    """Who holds the lease now; empty when nobody does."""
    return held_now(store, seconds).get(name, "")


def held_now(store: Store, seconds: float) -> dict[str, str]:
    """Name -> holder of every lease that is held."""
    with store.reading() as session:
        return dict(session.execute(select(Lease.name, Lease.holder).where(is_held(store, seconds))).all())


def is_held(store: Store, seconds: float) -> ColumnElement[bool]:
    """SQL condition on `Lease`: its holder lives."""
    return Lease.heartbeat_at > store.now - seconds
