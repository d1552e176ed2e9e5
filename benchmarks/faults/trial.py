"""A trial: a fresh Label Studio with one project, this backend, a team and an observer; and what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.publishing import LIVE_SUFFIX
from backend.store import rounds
from benchmarks import cheap_encoder
from benchmarks.faults.annotators import Team
from benchmarks.faults.observer import LabelStudioSqlite, LockWatch, Observer
from benchmarks.loop_latency import CONFIG, numbered_tasks
from tests.live.conftest import fresh_server
from tests.live.loop import Loop
from tests.live.relay import Relay

_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.{0,149})")
PROJECT_FOLDER = "project"
_REQUEST_LINE = re.compile(r'"(GET|POST|PATCH|PUT|DELETE) (/[^ ?"]*)[^"]*" (5\d\d) ')


@dataclass(frozen=True)
class Conditions:
    """What a trial starts from.

    Attributes
    ----------
    think : seconds a person takes over a task, in the mean
    warm_up : seconds before memory is looked at
    """

    tasks: int = 2000
    annotators: int = 2
    think: float = 4.0
    batch_size: int = 10
    warm_up: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    label_studio: Mapping[str, str] = field(default_factory=dict)


class Trial:
    """A running loop under observation; use as a context."""

    def __init__(self, server: LocalLabelStudio, loop: Loop, conditions: Conditions, what: Callable[[], str]) -> None:
        self.server, self.loop, self.conditions = server, loop, conditions
        self.began = time.monotonic()
        self.load_before = os.getloadavg()[0]
        accounts = [server.add_annotator(f"annotator{n}@localhost.local") for n in range(conditions.annotators)]
        self.team = Team(server, accounts, loop.project_id, loop.schema, conditions.think)
        file = server.data_dir / "label_studio.sqlite3"
        self.database = LabelStudioSqlite(file)
        self.observer = Observer(self.database, loop.project_id, loop.backend)
        self.locks = LockWatch(file, what)

    def start(self) -> None:
        """Annotators and observer begin; the first queue is in force."""
        self.began = time.monotonic()
        self.observer.start()
        self.locks.start()
        self.team.start()

    def go_on(self, seconds: float) -> None:
        """Let it run, with a line a minute about how it stands."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(60.0, left))
            status = self.loop.status
            note(
                f"{time.monotonic() - self.began:5.0f} s: {len(self.team.answered)} answered, {status.labels} learnt,"
                f" {status.version}, {status.queue_remaining} left, {self.observer.memory_now()} {status.last_error}"
            )

    def finish(self) -> dict[str, Any]:
        """Stop the team, let the backend come to rest, and compare what was sent with what is learnt."""
        self.team.stop()
        seconds = time.monotonic() - self.began
        load = os.getloadavg()[0]
        sent = self.database.answered(self.loop.project_id)
        # A difference that stays is what a trial is to find: it is reported, not raised.
        with contextlib.suppress(AssertionError):
            self.loop.wait_for_labels(len(sent))
        # Time without a queue counts up to here: afterwards nobody is waiting for one.
        self.observer.stop()
        self.locks.stop()
        if self.loop.status.pool:
            self.loop.ask_for_round()
        return self._figures(seconds, load, sent)

    def _figures(self, seconds: float, load: float, sent: set[int]) -> dict[str, Any]:
        learnt, store = self.loop.training_set(), self.loop.services.store
        truths = self.team.answered
        published = rounds.of_project(store, self.loop.project_id, "published", limit=100_000)
        failed = rounds.of_project(store, self.loop.project_id, "failed", "abandoned", limit=100_000)
        steps = {name: [r.seconds[name] for r in published if name in r.seconds] for name in published[0].seconds}
        return {
            "tasks": self.conditions.tasks,
            "annotators": self.conditions.annotators,
            "minutes": round(seconds / 60, 1),
            "confirmed_to_annotators": len(truths),
            "labels_sent": len(sent),
            "labels_learnt": len(learnt),
            "labels_of_last_round": int(published[0].counts.get("labels", 0)),
            "lost": len(sent - learnt.keys()) + len(truths.keys() - sent),
            "invented": len(learnt.keys() - sent),
            "wrong": sum(learnt.get(task) not in (None, truth) for task, truth in truths.items()),
            "answers_twice": self.database.answers(self.loop.project_id) - len(sent),
            "queue_as_published": self.loop.served_order() == self.loop.queued_ids(),
            "versions_left_over": len(self._versions()) - 1,
            "rounds_completed": len(published),
            "rounds_cut_off": len(failed),
            "round_errors": dict(Counter(r.error.split(":")[0] for r in failed)),
            "step_seconds": {n: {"mean": round(sum(s) / len(s), 2), "worst": max(s)} for n, s in steps.items()},
            **self.observer.figures(self.conditions.warm_up),
            **self.team.figures(),
            "label_studio_errors": server_errors(self.server.log_file),
            "tracebacks": tracebacks(self.loop.backend.log),
            "database_locked": self.locks.figures(),
            "load_average": [round(self.load_before, 1), round(load, 1)],
        }

    def _versions(self) -> set[str]:
        versions = self.loop.client.model_versions(self.loop.project_id)
        return {version for version in versions if not version.endswith(LIVE_SUFFIX)}


@contextmanager
def trial(
    folder: Path, conditions: Conditions, *, relay: Relay | None = None, what: Callable[[], str] = str
) -> Iterator[Trial]:
    """Set everything up and wait for the first queue.

    Parameters
    ----------
    relay : stands between the backend and Label Studio; annotators go to Label Studio itself
    what : tells what the backend has asked Label Studio for at this moment
    """
    options = {"batch_size": conditions.batch_size, **conditions.options}
    environment = {
        **cheap_encoder.ENVIRONMENT,
        **({"LABEL_STUDIO_URL": relay.url} if relay else {}),
        **conditions.environment,
    }
    # The observer reads the SQLite file, whatever database the tests run on.
    with fresh_server(folder, on_postgresql=False, environment=conditions.label_studio) as server:
        if relay:
            relay.target = server.url
        place = folder / PROJECT_FOLDER
        place.mkdir(exist_ok=True)
        note(f"importing {conditions.tasks} tasks")
        data = numbered_tasks(conditions.tasks)
        with Loop(server, place, data=data, config=CONFIG, options=options, environment=environment) as loop:
            loop.wait_for_version(seconds=3600)
            note("the first queue is in force")
            yield Trial(server, loop, conditions, what)


def caught_up(running: Trial) -> bool:
    """Whether all that was answered before this moment is learnt, but for what annotators are just sending."""
    sent = len(running.team.answered)
    return running.loop.status.labels >= sent - running.conditions.annotators


def server_errors(log: Path) -> dict[str, int]:
    """Answers of Label Studio with a status of 500 and more, by call."""
    calls: Counter[str] = Counter()
    with open(log, errors="replace") as lines:
        for line in lines:
            if found := _REQUEST_LINE.search(line):
                calls[f"{found[1]} {call_name(found[2])} {found[3]}"] += 1
    return dict(sorted(calls.items()))


def tracebacks(log: Path) -> dict[str, int]:
    """How often each exception is in a log with its traceback instead of in words, by its first 150 characters."""
    found = re.findall(
        r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.{0,149})", log.read_text(errors="replace")
    )
    return dict(Counter(found))


def call_name(path: str) -> str:
    """A path without its numbers and questions."""
    return re.sub(r"\d+", "N", path.split("?")[0]).strip("/")


def note(words: str) -> None:
    """Progress goes where it is not mistaken for figures."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)
