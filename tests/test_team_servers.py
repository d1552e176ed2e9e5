"""The servers that stand in for a team's installation are real, private and gone afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from tests import team_servers
from tests.live.backend_process import wait_for
from tests.team_servers import PostgresServer, RedisServer, TeamServerError


def answers(address: str) -> bool:
    try:
        psycopg.connect(address, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_every_database_is_empty_and_survives_a_restart_of_postgresql() -> None:
    with PostgresServer() as server:
        first, second = server.new_database(), server.new_database()
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.restart()
        with psycopg.connect(first) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
        folder = server.folder
    assert not folder.exists()
    assert not answers(first)


def test_every_redis_database_is_empty_and_the_password_is_asked_for() -> None:
    with RedisServer() as server:
        first, second = server.new_database(), server.new_database()
        with redis.Redis.from_url(first) as mine, redis.Redis.from_url(second) as other:
            mine.set("job", "1")
            assert (mine.get("job"), other.get("job")) == (b"1", None)
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_servers_end_with_the_process_that_started_them_even_when_it_is_killed() -> None:
    script = (
        "import os, signal\nfrom tests.team_servers import shared_postgres\n"
        "server = shared_postgres()\nprint(server.new_database(), server.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    address, folder = killed.stdout.split()
    try:
        wait_for("the orphaned server to end", lambda: not answers(address))
        wait_for("its last process to end", lambda: not (Path(folder) / "data" / "postmaster.pid").exists())
    finally:
        shutil.rmtree(folder)


def test_a_missing_program_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TeamServerError, match="make services"):
        RedisServer()
    monkeypatch.setattr(team_servers, "PACKAGED", tmp_path)
    with pytest.raises(TeamServerError, match="make services"):
        PostgresServer()
