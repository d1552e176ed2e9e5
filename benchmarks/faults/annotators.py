"""Annotators as threads: each takes the task Label Studio serves, thinks, and answers with the truth in the task."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from backend.errors import LabelStudioError, LabelStudioRefused
from backend.labelstudio.client import LabelStudio, ServedTask
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.schema import TaskSchema

_AFTER_A_FAILURE = 1.0


class _Client(LabelStudio):
    """Counts the answers that Label Studio failed to store, which `answer` submits again."""

    failures = 0

    def submit(self, *arguments: Any, **fields: Any) -> dict[str, Any]:
        try:
            return super().submit(*arguments, **fields)
        except LabelStudioRefused:
            self.failures += 1
            raise


class Annotator(threading.Thread):
    """One person.

    Attributes
    ----------
    answered
        Task id to the answer that Label Studio confirmed.
    waits
        Seconds they waited for the next task and for an answer to be taken.
    troubles
        What Label Studio refused them, by kind.
    """

    def __init__(
        self, client: _Client, project_id: int, schema: TaskSchema, think: float, seed: int, stop: threading.Event
    ) -> None:
        super().__init__(name=f"annotator {seed}", daemon=True)
        self.client, self.project_id, self.schema, self.think = client, project_id, schema, think
        self.random, self.stop = random.Random(seed), stop
        self.answered: dict[int, str] = {}
        self.waits: dict[str, list[float]] = {"next": [], "submit": []}
        self.troubles: Counter[str] = Counter()

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                served = self.client.next_task(self.project_id)
            except LabelStudioError as error:
                self._note("next", error)
                continue
            self.waits["next"].append(time.monotonic() - began)
            if served is None:
                self.troubles["no task left"] += 1
                self.stop.wait(_AFTER_A_FAILURE)
                continue
            if not served.predictions:
                self.troubles["served without a rank"] += 1
            if not self.stop.wait(self.think * self.random.uniform(0.5, 1.5)):
                self._answer(served)

    def _answer(self, served: ServedTask) -> None:
        truth = str(served.data["truth"])
        began = time.monotonic()
        while not self.stop.is_set():
            try:
                self.client.answer(served, self.schema, [truth])
            except LabelStudioError as error:
                self._note("submit", error)
                continue
            self.answered[served.id] = truth
            break
        self.waits["submit"].append(time.monotonic() - began)

    def _note(self, what: str, error: LabelStudioError) -> None:
        status = f" {error.status}" if isinstance(error, LabelStudioRefused) else ""
        self.troubles[f"{what} given up: {type(error).__name__}{status}"] += 1
        self.stop.wait(_AFTER_A_FAILURE)


class Team:
    """Several annotators at once, from `start` to `stop`.

    Parameters
    ----------
    think
        Seconds a person takes over a task; half of it to one and a half, uniformly.
    """

    def __init__(
        self, server: LocalLabelStudio, accounts: Sequence[Account], project_id: int, schema: TaskSchema, think: float
    ) -> None:
        self._stop = threading.Event()
        self.annotators = [
            Annotator(_Client(server.url, who.token), project_id, schema, think, seed, self._stop)
            for seed, who in enumerate(accounts)
        ]

    def start(self) -> None:
        for annotator in self.annotators:
            annotator.start()

    def stop(self) -> None:
        """Let everybody finish the call they are in."""
        self._stop.set()
        for annotator in self.annotators:
            annotator.join()

    @property
    def answered(self) -> dict[int, str]:
        return {task: truth for one in self.annotators for task, truth in one.answered.items()}

    def figures(self) -> dict[str, Any]:
        """What the team waited for and was refused."""
        troubles = sum((one.troubles for one in self.annotators), Counter[str]())
        return {
            "answers_submitted_again": sum(one.client.failures for one in self.annotators),
            "wait_next": _spread([w for one in self.annotators for w in one.waits["next"]]),
            "wait_submit": _spread([w for one in self.annotators for w in one.waits["submit"]]),
            "troubles": dict(sorted(troubles.items())),
        }


def _spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ranked = sorted(seconds)
    return {
        "median": round(ranked[len(ranked) // 2], 3),
        "p95": round(ranked[int(0.95 * (len(ranked) - 1))], 3),
        "worst": round(ranked[-1], 3),
        "sum": round(sum(ranked), 1),
    }
