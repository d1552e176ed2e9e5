"""Label Studio slow, failing, cutting connections, or refusing the token; only as this backend sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.relay import LabelStudioRelay
from benchmarks.faults.trial import Conditions, caught_up, note, trial
from tests.live.backend_process import wait_for


def scenario(illness: str) -> Callable[..., dict[str, Any]]:
    """A scenario: a third of the time well, a third ill, a third well again, annotators at work throughout."""

    def run(folder: Path, minutes: float = 3.0, tasks: int = 1000) -> dict[str, Any]:
        return _run(folder, illness, minutes, tasks)

    run.__doc__ = f"Label Studio ill: {illness}."
    return run


def _run(folder: Path, illness: str, minutes: float, tasks: int) -> dict[str, Any]:
    conditions = Conditions(tasks=tasks, annotators=2, think=2.0, options={"queue_size": 60, "poll_seconds": 5})
    with LabelStudioRelay() as relay, trial(folder, conditions, relay=relay, what=relay.under_way) as running:
        running.start()
        running.go_on(20 * minutes)
        relay.illness = illness
        note(f"Label Studio is ill: {illness}")
        before, told = running.loop.status, ""
        until = time.monotonic() + 20 * minutes
        while time.monotonic() < until:
            told = running.loop.status.last_error or told
            time.sleep(0.5)
        ill = running.loop.status
        relay.illness = ""
        note("Label Studio is well again")
        began = time.monotonic()
        wait_for("labels sent meanwhile to be learnt", lambda: caught_up(running))
        seconds = time.monotonic() - began
        wait_for("a round", lambda: running.loop.project.version != ill.version)
        round_after = time.monotonic() - began
        running.go_on(max(0.0, 20 * minutes - round_after))
        return {
            **running.finish(),
            "calls_harmed": dict(relay.harmed),
            "rounds_while_ill": ill.rounds - before.rounds,
            "labels_learnt_while_ill": ill.labels - before.labels,
            "told": told,
            "error_gone_at_the_end": running.loop.status.last_error == "",
            "seconds_to_catch_up": round(seconds, 1),
            "seconds_to_next_queue": round(round_after, 1),
            "our_calls": relay.figures(),
        }
