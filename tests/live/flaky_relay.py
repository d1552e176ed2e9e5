"""Stands between Label Studio and the backend and loses, doubles and delays webhook events."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class FlakyRelay:
    """Passes every request on; events by chance not at all, twice, or seconds late.

    `fates` counts what happened to the events.
    """

    def __init__(self, seed: int = 0) -> None:
        self.target = ""
        self.fates: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> FlakyRelay:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fate(self) -> str:
        fate = self._random.choice(["lost", "doubled", "late", "passed"])
        self.fates[fate] += 1
        return fate

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fate = relay._fate() if self.path == "/events" else "passed"
                if fate == "lost":
                    self._reply(201, b"{}")
                    return
                if fate == "late":
                    threading.Timer(4.0, self._forward_if_possible, [body]).start()
                    self._reply(201, b"{}")
                    return
                answer = self._forward(body)
                if fate == "doubled":
                    answer = self._forward(body)
                self._reply(answer.status_code, answer.content)

            def _forward(self, body: bytes) -> requests.Response:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                return requests.request(
                    self.command, relay.target + self.path, data=body, headers=headers, timeout=30
                )

            def _forward_if_possible(self, body: bytes) -> None:
                # The test may be over by then: as late as never.
                with contextlib.suppress(requests.RequestException):
                    self._forward(body)

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
