"""Load: a team on a large project, an hour's soak, and a burst of webhooks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from backend.store import events, notes
from benchmarks.faults.relay import LabelStudioRelay
from benchmarks.faults.trial import Conditions, Trial, trial
from tests.live.backend_process import wait_for
from tests.team_servers import PostgresServer

SENDERS = 8


def team(folder: Path, minutes: float = 15.0, tasks: int = 50_000, store: str = "sqlite") -> dict[str, Any]:
    """Eight annotators on a large project; every call of the backend to Label Studio is timed on its way."""
    with ExitStack() as stack:
        conditions = Conditions(
            tasks=tasks,
            annotators=8,
            think=6.0,
            batch_size=40,
            warm_up=120.0,
            environment=_stored_in(store, stack),
        )
        relay = stack.enter_context(LabelStudioRelay())
        running = stack.enter_context(trial(folder, conditions, relay=relay, what=relay.under_way))
        relay.forget()
        running.start()
        running.go_on(60 * minutes)
        return {"store": store, **running.finish(), "our_calls": relay.figures()}


def _stored_in(store: str, stack: ExitStack) -> dict[str, str]:
    """Variables of a backend with this kind of database, which ends with the stack."""
    if store == "sqlite":
        return {}
    address = stack.enter_context(PostgresServer(durable=True)).new_database()
    return {"MMAL_DATABASE_URL": address.replace("postgresql://", "postgresql+psycopg://")}


def soak(folder: Path, minutes: float = 60.0, tasks: int = 2000) -> dict[str, Any]:
    """Two annotators at a person's pace, a round about every 20 s: is memory flat after the first ten minutes?"""
    conditions = Conditions(tasks=tasks, annotators=2, think=4.0, batch_size=10, warm_up=600.0)
    with trial(folder, conditions) as running:
        running.start()
        running.go_on(60 * minutes)
        return running.finish()


def burst(folder: Path, minutes: float = 1.0, tasks: int = 2000, count: int = 10_000) -> dict[str, Any]:
    """Webhooks in a burst at a working backend, while annotators answer."""
    with trial(folder, Conditions(tasks=tasks)) as running:
        running.start()
        running.go_on(30 * minutes)
        sent = _burst(running, count)
        running.go_on(30 * minutes)
        return {**running.finish(), **sent}


def _burst(running: Trial, count: int) -> dict[str, Any]:
    store, backend = running.loop.services.store, running.loop.backend
    header = {"Authorization": f"Bearer {notes.events_secret(store)}"}
    event: Any = {"action": "ANNOTATION_CREATED", "project": {"id": running.loop.project_id}, "pad": "x" * 3000}

    def send(_: int) -> bool:
        return requests.post(f"{backend.url}/events", json=event, headers=header, timeout=30).status_code == 201

    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        taken = sum(pool.map(send, range(count)))
    seconds = time.monotonic() - began
    wait_for("the worker to have seen all events", lambda: events.waiting(store) == 0)
    return {
        "webhooks_sent": count,
        "webhooks_taken": taken,
        "webhooks_per_second": round(count / seconds),
        "seconds_until_all_were_seen": round(time.monotonic() - began, 1),
    }
