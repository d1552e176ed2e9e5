"""An ML backend that answers as it is told and keeps every request, to see what Label Studio really sends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class RecordingBackend:
    """Listens on a free loopback port while the context is open.

    `setup_answer(body)` gives status line and JSON for /setup; all else is answered 200.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.setup_answer: Callable[[Any], tuple[int, str, dict[str, Any]]] = lambda body: (
            200,
            "OK",
            {"model_version": "v0-live"},
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> RecordingBackend:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def events(self) -> list[str]:
        """Actions of the events received at /events, in order."""
        return [r.body["action"] for r in self.received if r.path == "/events"]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Whether the condition came true in time; webhooks arrive a moment after the call that causes them."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        return condition()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length) if length else b""
                body = json.loads(raw) if raw else None
                backend.received.append(Received(self.command, self.path, dict(self.headers), body))
                status, reason, reply = 200, "OK", {"status": "UP"}
                if self.path == "/setup":
                    status, reason, reply = backend.setup_answer(body)
                content = json.dumps(reply).encode()
                self.send_response(status, reason)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
