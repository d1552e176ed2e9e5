"""HTTP to Label Studio: authorization of both token kinds, time-outs, retries, and errors that say what to do."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from backend.errors import LabelStudioRefused, LabelStudioUnreachable, TokenRefused
from backend.json_reading import read_json

log = logging.getLogger(__name__)

TokenKind = Literal["legacy", "personal"]
Item = TypeVar("Item")

_RENEW_BEFORE = 60.0  # seconds before the access token expires
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_GATEWAY = frozenset({502, 503, 504})
_NEW_KEY = "Set LABEL_STUDIO_API_KEY to a token made in Label Studio under Account & Settings > Personal Access Token"


def token_kind(api_key: str) -> TokenKind:
    """A personal access token is a JWT of three dotted parts; a legacy token is 40 hexadecimal digits."""
    return "personal" if api_key.count(".") == 2 and api_key.startswith("ey") else "legacy"


class _Transient(Exception):
    """Worth another attempt: carries the error to raise when the attempts are used up."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """One Label Studio and one API key. Safe to share between threads.

    A personal access token is only good for fetching access tokens that live for 300 s, so it is exchanged
    on first use and again a minute before each expires.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        attempts: int = 4,
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise LabelStudioUnreachable(f"LABEL_STUDIO_URL is {url!r}: it must start with http:// or https://")
        self._api_key = api_key.strip()
        if not self._api_key:
            raise TokenRefused(f"LABEL_STUDIO_API_KEY is empty. {_NEW_KEY}")
        self.kind: TokenKind = token_kind(self._api_key)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._attempts = attempts
        self._local = threading.local()
        self._lock = threading.Lock()
        self._access: str | None = None
        self.answered_at = datetime.now(UTC)
        self._access_until = 0.0

    def authorization(self) -> dict[str, str]:
        """Header that Label Studio accepts now, also for media it serves."""
        if self.kind == "legacy":
            return {"Authorization": f"Token {self._api_key}"}
        with self._lock:
            if self._access is None or time.time() > self._access_until - _RENEW_BEFORE:
                self._access = self._exchange()
                self._access_until = _expiry(self._access)
            return {"Authorization": f"Bearer {self._access}"}

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        repeatable: bool | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one call and return the decoded JSON (None when the answer has no body).

        Parameters
        ----------
        path : below the base address, with a leading slash
        repeatable : may be sent again after a failure that leaves open whether it took effect;
            by default true for all methods but POST. A refused connection is tried again in any case.
        timeout : seconds to wait for the answer, when it differs from the session's

        Raises
        ------
        LabelStudioUnreachable, TokenRefused, LabelStudioRefused
        """
        again = method.upper() != "POST" if repeatable is None else repeatable
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _Transient)),
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.3, max=5.0),
            reraise=True,
        )
        try:
            answer = retrying(self._send, method, path, params, body, again, timeout or self._timeout)
        except _Transient as transient:
            raise transient.error from None
        return _decode(answer, f"{method} {path}")

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Any,
        again: bool,
        timeout: float,
    ) -> requests.Response:
        answer = self._once(method, path, params, body, again, timeout, self.authorization())
        if answer.status_code == 401 and self.kind == "personal":
            # The access token may have been revoked, or the clocks differ: one new exchange.
            with self._lock:
                self._access = None
            answer = self._once(method, path, params, body, again, timeout, self.authorization())
        _raise_for_status(answer, f"{method} {path}", self.kind, self.url, again)
        self.answered_at = _server_time(answer)
        return answer

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Any,
        again: bool,
        timeout: float,
        headers: Mapping[str, str],
    ) -> requests.Response:
        try:
            return self._http().request(
                method,
                self.url + path,
                params=params,
                json=body,
                headers=dict(headers),
                timeout=(self._connect_timeout, timeout),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            failure = LabelStudioUnreachable(
                f"Label Studio does not answer at {self.url} ({method} {path}): {_reason(error)}."
                " Is it running, and is LABEL_STUDIO_URL right as seen from this machine?"
            )
            never_arrived = isinstance(error, requests.ConnectTimeout) or "NewConnectionError" in str(error)
            broken = isinstance(error, requests.ConnectionError | requests.Timeout)
            if never_arrived or (again and broken):
                raise _Transient(failure) from error
            raise failure from error

    def _exchange(self) -> str:
        """Personal access token -> access token. The caller holds the lock."""
        path = "/api/token/refresh/"
        answer = self._once("POST", path, None, {"refresh": self._api_key}, True, self._timeout, {})
        if answer.status_code in (400, 401):
            raise TokenRefused(
                f"Label Studio at {self.url} refused the personal access token ({_detail(answer)}). {_NEW_KEY}"
            )
        _raise_for_status(answer, f"POST {path}", self.kind, self.url, True)
        decoded = _decode(answer, f"POST {path}")
        access = decoded.get("access") if isinstance(decoded, dict) else None
        if not isinstance(access, str):
            raise TokenRefused(f"Label Studio at {self.url} gave no access token for the personal one. {_NEW_KEY}")
        return access

    def _http(self) -> requests.Session:
        # requests.Session is not documented as thread-safe, so each thread keeps its own connections.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.auth = _keep_header  # otherwise a .netrc on this machine replaces the Authorization header
            session.trust_env = urlsplit(self.url).hostname not in _LOOPBACK  # no proxy for this machine
            self._local.session = session
        return session


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of at most `size` items."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _keep_header(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _expiry(access: str) -> float:
    """`exp` of a JWT in seconds since the epoch; soon, when it cannot be read."""
    try:
        payload = access.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return time.time() + 2 * _RENEW_BEFORE


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "time-out"
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed ({error})"
    return "connection refused or closed" if isinstance(error, requests.ConnectionError) else str(error)


def _detail(answer: requests.Response) -> str:
    """What Label Studio says went wrong, in one line of at most 500 characters."""
    try:
        said = answer.json()
    except ValueError:
        return f"{answer.reason or 'no reason'}, body is not JSON"
    if isinstance(said, dict):
        parts = [str(said["detail"])] if said.get("detail") else []
        errors = said.get("validation_errors")
        if isinstance(errors, dict):
            parts += [f"{k}: {' '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in errors.items()]
        elif errors:
            parts.append(str(errors))
        text = "; ".join(parts) or json.dumps(said)
    else:
        text = json.dumps(said)
    return " ".join(text.split())[:500]


def _server_time(answer: requests.Response) -> datetime:
    """The moment of the answer by Label Studio's clock; by ours where a proxy took the header away."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _raise_for_status(answer: requests.Response, what: str, kind: TokenKind, url: str, again: bool) -> None:
    status = answer.status_code
    if status < 300:
        return
    if 300 <= status < 400:
        # Without what comes after the path, which may be a signature.
        target = answer.headers.get("Location", "").partition("?")[0]
        raise LabelStudioRefused(
            f"{what}: {url} redirects to {target}. Set LABEL_STUDIO_URL to the address it redirects to",
            status=status,
            detail=f"redirect to {target}",
        )
    detail = _detail(answer)
    if status == 401:
        switched_off = (
            " Legacy tokens are off in a new Label Studio: use a personal access token." if kind == "legacy" else ""
        )
        raise TokenRefused(f"Label Studio at {url} refused the API key ({detail}).{switched_off} {_NEW_KEY}")
    refused = LabelStudioRefused(f"{what}: Label Studio answered {status}: {detail}", status=status, detail=detail)
    # With DEBUG off a locked SQLite is a bare error page, without the word.
    bare = "json" not in answer.headers.get("Content-Type", "")
    if again and (status in _GATEWAY or (status == 500 and (bare or "database is locked" in answer.text))):
        raise _Transient(refused)
    raise refused


def _decode(answer: requests.Response, what: str) -> Any:
    if not answer.content:
        return None
    try:
        return read_json(answer.content)
    except ValueError:
        kind = answer.headers.get("Content-Type", "unknown")
        raise LabelStudioRefused(
            f"{what}: the answer is {kind} and not JSON. Does LABEL_STUDIO_URL point to Label Studio itself?",
            status=answer.status_code,
            detail=f"{kind} instead of JSON",
        ) from None
