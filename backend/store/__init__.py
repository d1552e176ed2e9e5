"""What must survive a restart: projects, tasks, answers, vectors, heads, rounds, events, leases."""

from backend.store.database import Store, open_store

__all__ = ["Store", "open_store"]
