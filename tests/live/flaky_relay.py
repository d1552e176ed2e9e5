"""Stands between Label Studio and the backend and loses, doubles and delays webhook events."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter

import requests

from tests.live.relay import Relay, RelayedCall


class FlakyRelay(Relay):
    """Passes every request on; events by chance not at all, twice, or seconds late.

    `fates` counts what happened to the events.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.fates: Counter[str] = Counter()
        self._random = random.Random(seed)

    def serve(self, call: RelayedCall) -> None:
        fate = self._fate() if call.path == "/events" else "passed"
        if fate == "lost":
            call.answer(201)
            return
        if fate == "late":
            threading.Timer(4.0, _forward_if_possible, [call]).start()
            call.answer(201)
            return
        answer = call.forward()
        if fate == "doubled":
            answer = call.forward()
        call.reply(answer)

    def _fate(self) -> str:
        fate = self._random.choice(["lost", "doubled", "late", "passed"])
        self.fates[fate] += 1
        return fate


def _forward_if_possible(call: RelayedCall) -> None:
    # The test may be over by then: as late as never.
    with contextlib.suppress(requests.RequestException):
        call.forward()
