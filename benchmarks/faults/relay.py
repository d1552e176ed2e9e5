"""Between this backend and Label Studio: times every call, and can be told to make Label Studio ill."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from benchmarks.faults.trial import call_name
from tests.live.relay import Relay, RelayedCall


class LabelStudioRelay(Relay):
    """Passes calls on.

    Attributes
    ----------
    illness
        "": none; "slow": every answer comes `delay` seconds late; "errors": half of the calls are answered 500,
        half of those after they took effect; "cuts": the same with the connection closed; "token": 401 to all.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.illness, self.delay = "", 4.0
        self.harmed: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._now: dict[int, str] = {}
        self._lock = threading.Lock()

    def serve(self, call: RelayedCall) -> None:
        name = f"{call.method} {call_name(call.path)}"
        with self._timed(name):
            self._serve(call, self.illness)

    def _serve(self, call: RelayedCall, illness: str) -> None:
        strikes = illness in ("slow", "token") or (illness and self._random.random() < 0.5)
        if not strikes:
            self._pass_on(call)
            return
        self.harmed[illness] += 1
        if illness == "slow":
            time.sleep(self.delay)
            self._pass_on(call)
        elif illness == "token":
            call.answer(401, b'{"detail": "Invalid token."}')
        else:
            if self._random.random() < 0.5:
                self.harmed[f"{illness} after it took effect"] += 1
                call.forward()
            if illness == "errors":
                call.answer(500, b'{"detail": "database is locked"}')
            else:
                call.cut()

    def _pass_on(self, call: RelayedCall) -> None:
        try:
            answer = call.forward()
        except requests.RequestException:
            call.cut()
            return
        call.reply(answer)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began, me = time.monotonic(), threading.get_ident()
        self._now[me] = name
        try:
            yield
        finally:
            self._now.pop(me, None)
            with self._lock:
                self._seconds[name].append(time.monotonic() - began)

    def under_way(self) -> str:
        """The calls that writes of this backend are in at this moment."""
        return ", ".join(sorted({name for name in list(self._now.values()) if not name.startswith("GET")}))

    def forget(self) -> None:
        """Times from here on."""
        with self._lock:
            self._seconds.clear()

    def figures(self) -> dict[str, Any]:
        """Seconds of each kind of call, those that took longest first."""
        with self._lock:
            found = {
                name: {"calls": len(s), "mean": round(sum(s) / len(s), 2), "worst": round(max(s), 2)}
                for name, s in self._seconds.items()
            }
        return dict(sorted(found.items(), key=lambda item: -item[1]["worst"]))
