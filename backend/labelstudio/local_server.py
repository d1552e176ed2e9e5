"""A real Label Studio on this machine, as a child process: for the demo and for live tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from backend.errors import LabelStudioError, LocalLabelStudioError
from backend.labelstudio.allowed_addresses import environment_allowing
from backend.labelstudio.client import LabelStudio

_GUARD = Path(__file__).with_name("process_guard.py")
_ACCOUNT_FILE = "local_account.json"
# `localhost` is both, and a name of which one address is refused is refused.
LOOPBACK = ("127.0.0.1", "::1")

Progress = Callable[[float, str], None]
"""Called about once a second while Label Studio starts: seconds so far, and what it is doing."""


@dataclass(frozen=True)
class Account:
    """A user of the local Label Studio; `token` is a legacy token."""

    email: str
    password: str
    token: str


class LocalLabelStudio:
    """Starts and stops one Label Studio on loopback, with an admin and a token of its own.

    Parameters
    ----------
    data_dir : database and uploads; kept between starts, made when missing
    executable : the `label-studio` command of the environment it is installed in
    port : None picks a free one on the first start and keeps it for restarts
    document_root : folder whose files tasks may refer to as `/data/local-files/?d=...`
    environment : further variables for the process, such as {"LABEL_STUDIO_TASK_LOCK_TTL": "5"}

    The process ends with this one, even when this one is killed.
    """

    def __init__(
        self,
        data_dir: Path,
        executable: Path,
        port: int | None = None,
        document_root: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not executable.is_file():
            raise LocalLabelStudioError(
                f"No Label Studio at {executable}: make a virtual environment of its own for it and"
                " `pip install label-studio==1.23.2` there (it does not share one with this backend)"
            )
        self.data_dir = data_dir.resolve()
        self.executable = executable
        self.document_root = document_root.resolve() if document_root else None
        self.log_file = self.data_dir / "label-studio.log"
        self.environment = dict(environment or {})
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.admin = self._admin_account()

    @property
    def url(self) -> str:
        if self._port is None:
            raise LocalLabelStudioError("Label Studio has no port before its first start: call start()")
        return f"http://127.0.0.1:{self._port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 300.0, progress: Progress | None = None) -> None:
        """Start and wait until it answers with this server's account (the first start migrates: 40-60 s)."""
        if self.running:
            return
        if self._port is None:
            self._port = free_port()
        elif _answers(self._port):
            # Label Studio would move to the next port without a word.
            raise LocalLabelStudioError(f"Port {self._port} is taken: choose another or stop what uses it")
        log = self.log_file.open("ab")
        log_start = log.tell()
        with log:
            self._process = subprocess.Popen(
                [sys.executable, str(_GUARD), *self._command()],
                env=self._variables(),
                cwd=self.data_dir,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(timeout, progress, log_start)
        except BaseException:
            self.kill9()
            raise

    def stop(self, timeout: float = 15.0) -> None:
        """Ask it to end, and end it when it does not within `timeout` seconds."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        self.kill9()

    def kill9(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        # Killed is not gone: the port is free for a restart a moment later.
        deadline = time.monotonic() + 10.0
        while self._port is not None and _answers(self._port) and time.monotonic() < deadline:
            time.sleep(0.05)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, account: Account | None = None) -> LabelStudio:
        """API client of the admin, or of another account."""
        return LabelStudio(self.url, (account or self.admin).token)

    def add_annotator(self, email: str, password: str | None = None) -> Account:
        """Sign up a further member of the organization through an invitation."""
        secret = password or secrets.token_urlsafe(12)
        invitation = self.client().http.request("GET", "/api/invite")["invite_url"]
        path = re.sub(r"^https?://[^/]+", "", invitation)
        web = requests.Session()
        web.trust_env = False
        form = web.get(self.url + path, timeout=30)
        answer = web.post(
            self.url + path,
            data={
                "email": email,
                "password": secret,
                "allow_newsletters": "false",
                "csrfmiddlewaretoken": form_token(form.text),
            },
            headers={"Referer": self.url + path},
            allow_redirects=False,
            timeout=30,
        )
        token = web.get(f"{self.url}/api/current-user/token", timeout=30)
        if answer.status_code != 302 or token.status_code != 200:
            raise LocalLabelStudioError(f"{email} could not be signed up: {answer.status_code}, {token.status_code}")
        return Account(email, secret, str(token.json()["token"]))

    def _admin_account(self) -> Account:
        path = self.data_dir / _ACCOUNT_FILE
        if path.exists():
            return Account(**json.loads(path.read_text()))
        account = Account("admin@localhost.local", secrets.token_urlsafe(12), secrets.token_hex(20))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(account), file)
        return account

    def _command(self) -> list[str]:
        command = [str(self.executable), "start", "--no-browser", "--internal-host", "127.0.0.1"]
        return [*command, "--port", str(self._port)]

    def _variables(self) -> dict[str, str]:
        # Variables meant for this backend (LABEL_STUDIO_URL, LABEL_STUDIO_API_KEY...) are read by Label Studio too.
        variables = {key: value for key, value in os.environ.items() if not key.startswith("LABEL_STUDIO_")}
        variables |= {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_HOST": self.url,
            "LABEL_STUDIO_USERNAME": self.admin.email,
            "LABEL_STUDIO_PASSWORD": self.admin.password,
            "LABEL_STUDIO_USER_TOKEN": self.admin.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            # Otherwise Label Studio refuses ML backends and webhooks on loopback.
            **environment_allowing(LOOPBACK),
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        if self.document_root is not None:
            variables |= {
                "LOCAL_FILES_SERVING_ENABLED": "true",
                "LOCAL_FILES_DOCUMENT_ROOT": str(self.document_root),
            }
        return variables | self.environment

    def _wait(self, timeout: float, progress: Progress | None, log_start: int) -> None:
        started = time.monotonic()
        client = LabelStudio(self.url, self.admin.token, timeout=10, attempts=1)
        while (elapsed := time.monotonic() - started) < timeout:
            if self._process is None or self._process.poll() is not None:
                raise LocalLabelStudioError(f"Label Studio ended while starting.{self._last_words(log_start)}")
            # A whoami and not /health: it also shows that the answer comes from this server and no other.
            with contextlib.suppress(LabelStudioError):
                client.whoami()
                return
            if progress is not None:
                progress(elapsed, self._doing(log_start))
            time.sleep(0.5)
        raise LocalLabelStudioError(
            f"Label Studio did not answer at {self.url} within {timeout:.0f} s.{self._last_words(log_start)}"
        )

    def _doing(self, log_start: int) -> str:
        text = self._log_since(log_start)
        if "Starting development server" in text:
            return "starting the web server"
        return "preparing the database" if "Initializing database" in text else "loading"

    def _log_since(self, start: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def _last_words(self, log_start: int) -> str:
        lines = self._log_since(log_start).strip().splitlines()[-8:]
        return f" Its log ({self.log_file}) ends with:\n" + "\n".join(lines)


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def form_token(html: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', html)
    if found is None:
        raise LocalLabelStudioError("Label Studio's sign-in page has no form token: is this version 1.23?")
    return found.group(1)
