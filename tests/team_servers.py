"""Real servers of a team's installation, private to one run: PostgreSQL and Redis, for tests and benchmarks.

Both listen on loopback only, at a free port, in a temporary folder, behind a password, and end with the process
that started them, even when that one is killed.

    with PostgresServer() as postgres, RedisServer() as redis:
        environment = {"MMAL_DATABASE_URL": postgres.new_database(), "MMAL_QUEUE_URL": redis.new_database()}
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
import redis

from backend.labelstudio import process_guard
from backend.labelstudio.local_server import free_port

# `make test-team`: backends and Label Studio get databases of these servers, instead of SQLite.
ON_POSTGRESQL = os.environ.get("MMAL_TEST_STORE", "sqlite") == "postgresql"
START_SECONDS = 120.0
REDIS_DATABASES = 4096
# Where Debian and Ubuntu put the programs of each version; they are not on the path.
PACKAGED = Path("/usr/lib/postgresql")


class TeamServerError(RuntimeError):
    """A server's program is missing, or it did not start; the message says what to do."""


class _Server:
    """A server in a temporary folder.

    `stop` keeps port and data for the next `start`; leaving the block removes them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        self.folder = Path(tempfile.mkdtemp(prefix=f"mmal-{name}-"))
        self.log_file = self.folder / f"{name}.log"
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, process_guard.__file__, *self._command()],
                cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill9()
                tail = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])
                raise TeamServerError(f"{self.name} did not start at port {self.port}. Its log ends with:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End in peace: connections are closed, what was committed stays."""
        self._end(self._peaceful_signal)

    def kill9(self) -> None:
        """End at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start again on the same port; PostgreSQL keeps its data, Redis forgets its own."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    _peaceful_signal = signal.SIGTERM

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _end(self, number: signal.Signals) -> None:
        guard, self._process = self._process, None
        if guard is None:
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int((self.folder / "server.pid").read_text().split()[0]), number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
        if guard.stdin is not None:
            guard.stdin.close()


class PostgresServer(_Server):
    """A private PostgreSQL cluster.

    Parameters
    ----------
    durable
        Write to disk before a commit returns, as in production; tests that lose no power need not wait for it.
    """

    # SIGTERM would wait for every client to leave.
    _peaceful_signal = signal.SIGINT

    def __init__(self, *, durable: bool = False) -> None:
        self._programs = _postgres_programs()
        super().__init__("postgres")
        self._owner = _unprivileged_user()
        self._options = [] if durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        self._made = False

    def start(self) -> None:
        """Make the cluster at the first start; start and wait until it answers."""
        if not self._made:
            self._make_cluster()
            self._made = True
        super().start()

    def new_database(self, dump: Path | None = None) -> str:
        """Address of a database of its own, `postgresql://...`: empty, or with what `dump` wrote."""
        name = f"mmal_{next(self._numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        if dump is not None:
            psql = [str(self._programs / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--file={dump}"]
            _run([*psql, self.address(name)], self.folder)
        return self.address(name)

    def dump(self, address: str, path: Path) -> None:
        """Write a database to a file, as SQL."""
        _run([str(self._programs / "pg_dump"), "--no-owner", f"--file={path}", address], self.folder)

    def address(self, database: str) -> str:
        """Address of a database of this server."""
        return f"postgresql://mmal:{self.password}@127.0.0.1:{self.port}/{database}"

    def _make_cluster(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self._owner:
            for path in (self.folder, secret):
                shutil.chown(path, self._owner)
        # A collation other than SQLite's order of bytes, as servers in the field have: tests see who relies on it.
        command = [
            *self._as_owner(), str(self._programs / "initdb"), "--pgdata", str(self.folder / "data"),
            "--username", "mmal", "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8",
            "--locale", "C", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync",
        ]  # fmt: skip
        _run(command, self.folder)
        secret.unlink()

    def _command(self) -> list[str]:
        settings = [
            f"external_pid_file={self.folder / 'server.pid'}", "listen_addresses=127.0.0.1",
            "unix_socket_directories=", "max_connections=300",
        ]  # fmt: skip
        options = [word for setting in settings for word in ("-c", setting)]
        server = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        return [*self._as_owner(), *server, *options, *self._options]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_owner(self) -> list[str]:
        if not self._owner:
            return []
        return ["setpriv", f"--reuid={self._owner}", f"--regid={self._owner}", "--clear-groups", "--"]


class RedisServer(_Server):
    """A private Redis that keeps everything in memory: after a restart it is empty."""

    def __init__(self) -> None:
        self._program = shutil.which("redis-server")
        if self._program is None:
            raise TeamServerError(
                "No redis-server on the path: run `make services`, or install the package redis-server (Debian,"
                " Ubuntu)."
            )
        super().__init__("redis")

    def new_database(self) -> str:
        """Address of an empty database of its own: `redis://...`."""
        number = next(self._numbers)
        if number >= REDIS_DATABASES:
            raise TeamServerError(f"All {REDIS_DATABASES} databases of this Redis are given away: start another one.")
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{number}"

    def _command(self) -> list[str]:
        options = {
            "port": self.port, "bind": "127.0.0.1", "requirepass": self.password, "save": "",
            "appendonly": "no", "databases": REDIS_DATABASES, "pidfile": self.folder / "server.pid",
            "dir": self.folder,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [str(self._program), *words]

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, password=self.password, socket_timeout=5) as client:
                return bool(client.ping()) and (self.folder / "server.pid").exists()
        except redis.RedisError:
            return False


@cache
def shared_postgres() -> PostgresServer:
    """The PostgreSQL of this process, started at the first call."""
    return PostgresServer().__enter__()


@cache
def shared_redis() -> RedisServer:
    """The Redis of this process, started at the first call."""
    return RedisServer().__enter__()


def close_shared() -> None:
    """End what `shared_postgres` and `shared_redis` started."""
    for shared in (shared_postgres, shared_redis):
        if shared.cache_info().currsize:
            shared().close()
            shared.cache_clear()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TeamServerError(f"{Path(command[0]).name} failed ({done.returncode}): {done.stderr.strip()}")


def _postgres_programs() -> Path:
    on_path = shutil.which("initdb")
    packaged = [path.parent for path in PACKAGED.glob("*/bin/initdb")]
    if not on_path and not packaged:
        raise TeamServerError(
            "No PostgreSQL (initdb) on the path or in /usr/lib/postgresql/*/bin: run `make services`, or install the"
            " package postgresql (Debian, Ubuntu)."
        )
    # A link into the folder of programs is followed: initdb looks for the others beside itself.
    newest = sorted(packaged, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    return newest[-1] if newest else Path(str(on_path)).resolve().parent


def _unprivileged_user() -> str:
    """PostgreSQL refuses to run as root; the user of the package, or nobody, is lent to it then."""
    if os.geteuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
