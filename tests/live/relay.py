"""An HTTP server that passes every request on; subclasses decide what goes wrong on the way."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import requests

_NOT_PASSED_ON = ("host", "content-length", "connection", "accept-encoding")
_PASSED_BACK = ("Content-Type", "Date")


class Relay:
    """Stands before `target`; `url` is where it listens on loopback."""

    def __init__(self) -> None:
        self.target = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, call: RelayedCall) -> None:
        """What becomes of a request."""
        call.reply(call.forward())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                relay.serve(RelayedCall(relay, self))

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class RelayedCall:
    """One request on its way."""

    def __init__(self, relay: Relay, handler: BaseHTTPRequestHandler) -> None:
        self._relay, self._handler = relay, handler
        self.method, self.path = handler.command, handler.path
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))

    def forward(self) -> requests.Response:
        """Send it to the target."""
        headers = {k: v for k, v in self._handler.headers.items() if k.lower() not in _NOT_PASSED_ON}
        return requests.request(
            self.method, self._relay.target + self.path, data=self.body, headers=headers, timeout=600,
            allow_redirects=False,
        )  # fmt: skip

    def reply(self, answer: requests.Response) -> None:
        """Hand an answer of the target back."""
        self.answer(answer.status_code, answer.content, {k: answer.headers.get(k, "") for k in _PASSED_BACK})

    def answer(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        """Answer in the target's place."""
        self._handler.send_response_only(status)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            if value:
                self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        # Whoever asked may be gone by now: killed, or tired of waiting.
        with contextlib.suppress(ConnectionError):
            self._handler.end_headers()
            self._handler.wfile.write(body)

    def cut(self) -> None:
        """Close the connection without an answer."""
        self._handler.close_connection = True
        self._handler.connection.close()
