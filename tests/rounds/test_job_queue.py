"""The queue between the pulse and the threads: shared by hosts, and nothing that is lost with it matters."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from huey import consumer
from pydantic import SecretStr

from backend.errors import QueueAddressInvalid, QueueDamaged, QueueUnreachable, StoreFull
from backend.rounds import job_queue
from backend.rounds.doctor import examine
from backend.rounds.services import Services
from backend.rounds.worker import Worker
from backend.settings import Settings
from backend.store import leases, projects
from tests.store.file_faults import DAMAGES, full_disk, overwrite_header
from tests.team_servers import RedisServer, shared_postgres


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def settings(redis: RedisServer, tmp_path: Path) -> Settings:
    """A host whose store is asked for by a new project."""
    found = Settings(
        data_dir=tmp_path,
        label_studio_api_key=SecretStr("none"),
        encoder="import:tests.live.toy_encoder:make",
        queue_url=redis.new_database(),
    )
    projects.remember(Services(found).store, 1, state="new")
    return found


def waiting(worker: Worker) -> list[tuple[str, int]]:
    return [(task.name, task.args[0]) for task in worker.huey.pending()]


def test_workers_of_two_hosts_ask_for_a_job_once_and_a_start_drops_nothing(settings: Settings) -> None:
    first, second = Worker(Services(settings)), Worker(Services(settings))
    first.look()
    second.look()
    assert waiting(first) == waiting(second) == [("attach", 1)]
    assert waiting(Worker(Services(settings))) == [("attach", 1)]


def test_a_queue_that_another_process_holds_for_long_is_not_taken_for_damaged(tmp_path: Path) -> None:
    worker = Worker(Services(Settings(data_dir=tmp_path, label_studio_api_key=SecretStr("none"))))
    worker.huey.storage.conn.execute("PRAGMA busy_timeout = 10")
    file = tmp_path / "jobs.sqlite3"
    kept = file.stat().st_ino
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            worker.huey.storage.enqueue(b"{}")
    worker.huey.storage.enqueue(b"{}")
    assert file.stat().st_ino == kept
    assert worker.huey.storage.queue_size() == 1


def test_what_another_host_is_at_is_not_asked_for(settings: Settings) -> None:
    services = Services(settings)
    projects.remember(services.store, 1, state="attached", round_requested="the test")
    worker = Worker(services)
    with leases.held(services.store, "round 1", "another host", 30), leases.held(services.store, "sync 1", "b", 30):
        worker.look()
        assert waiting(worker) == []
    worker.look()
    assert sorted(waiting(worker)) == [("round", 1), ("sync", 1)]


def test_two_stores_in_one_redis_do_not_get_each_others_jobs(settings: Settings, tmp_path: Path) -> None:
    worker = Worker(Services(settings))
    worker.look()
    other = Worker(Services(settings.model_copy(update={"data_dir": tmp_path / "another store"})))
    assert waiting(worker) == [("attach", 1)]
    assert waiting(other) == []


def test_a_redis_that_is_gone_is_told_without_its_password_and_the_work_goes_on_when_it_is_back(
    settings: Settings, redis: RedisServer
) -> None:
    worker = Worker(Services(settings))
    worker.look()
    redis.stop()
    with pytest.raises(QueueUnreachable, match="MMAL_QUEUE_URL") as told, job_queue.in_words(settings):
        worker.look()
    assert redis.password not in str(told.value)
    [found] = [finding for finding in examine(Services(settings)) if finding.name == "job queue"]
    assert not found.ok
    assert "MMAL_QUEUE_URL" in found.remedy
    assert redis.password not in found.detail + found.remedy
    # A worker that starts meanwhile waits like the others.
    late = Worker(Services(settings))
    redis.start()
    late.look()
    assert waiting(late) == [("attach", 1)]
    [found] = [finding for finding in examine(Services(settings)) if finding.name == "job queue"]
    assert found.ok
    assert found.detail.endswith(", 1 jobs waiting")


def test_an_address_that_is_none_is_refused_by_the_name_of_its_setting(settings: Settings) -> None:
    wrong = settings.model_copy(update={"queue_url": "amqp://user:s3cret@queue"})
    with pytest.raises(QueueAddressInvalid, match="MMAL_QUEUE_URL") as refused:
        Worker(Services(wrong))
    assert "s3cret" not in str(refused.value)


def test_without_redis_a_worker_on_postgresql_keeps_its_jobs_to_itself(settings: Settings) -> None:
    # The data folder may be on a network, where SQLite breaks.
    alone = settings.model_copy(update={"queue_url": "", "database_url": shared_postgres().new_database()})
    services = Services(alone)
    projects.remember(services.store, 1, state="new")
    first, second = Worker(services), Worker(services)
    first.look()
    assert waiting(first) == [("attach", 1)]
    assert waiting(second) == []
    assert not list(settings.data_dir.glob("jobs*"))


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """One host on SQLite, which has run before."""
    found = settings.model_copy(update={"queue_url": ""})
    Worker(Services(found)).look()
    return found


def queue_file(settings: Settings) -> Path:
    """The queue's file with all that was put into it, and nothing of it in the log beside it."""
    path = settings.data_dir / "jobs.sqlite3"
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO task (queue, data) VALUES ('another', 'x')")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_worker_starts_on_a_damaged_queue_with_a_new_one(alone: Settings, damage: Callable[[Path], None]) -> None:
    damage(queue_file(alone))
    worker = Worker(Services(alone))
    worker.look()
    assert waiting(worker) == [("attach", 1)]


def test_a_damaged_queue_is_told_in_one_line_at_the_start(alone: Settings, caplog: pytest.LogCaptureFixture) -> None:
    overwrite_header(queue_file(alone))
    Worker(Services(alone))
    assert "jobs.sqlite3 could not be used (file is not a database), and a new one takes its place" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_queue_that_is_damaged_in_use_costs_a_look_at_most_and_no_job(
    alone: Settings, damage: Callable[[Path], None]
) -> None:
    worker = Worker(Services(alone))
    damage(queue_file(alone))
    with suppress(QueueDamaged):  # a file that was only deleted is still there for those who have it open
        worker.look()
    worker.look()
    assert waiting(worker) == [("attach", 1)]
    assert worker.huey.dequeue().name == "attach"


def test_a_thread_that_meets_the_damage_says_so_in_one_line(
    alone: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(Services(alone))
    overwrite_header(queue_file(alone))
    caplog.handler.addFilter(job_queue.OneLine())
    consumer.Worker(worker.huey, threading.Event(), 0.05, 0.2, 1.15).loop()
    assert "jobs.sqlite3 could not be used" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_queue_that_can_neither_be_used_nor_removed_is_told_with_what_to_do(alone: Settings) -> None:
    path = queue_file(alone)
    path.unlink()
    path.mkdir()
    with pytest.raises(QueueDamaged, match=r"Stop the worker, remove jobs\.sqlite3\*"):
        Worker(Services(alone))


def test_a_queue_without_space_is_a_full_disk_and_is_kept(alone: Settings) -> None:
    worker, path = Worker(Services(alone)), queue_file(alone)
    job = b"x" * 100_000
    with full_disk(path.stat().st_size + 8192), pytest.raises(StoreFull, match="No space is left"):
        worker.huey.storage.enqueue(job)
    worker.huey.storage.enqueue(job)
    assert worker.huey.storage.enqueued_items() == [job]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:s3cret@db/mmal",
        "postgresql+psycopg://user:s3c@ret:x@db:5432/mmal?sslmode=require",
        "redis://:s3cret@redis:6379/0",
        "postgresql://db/mmal?user=me&password=s3cret&sslmode=require",
    ],
)
def test_no_password_of_an_address_is_shown(address: str) -> None:
    settings = Settings(database_url=address, queue_url=address)
    shown = {variable: value for variable, value, *_ in settings.rows()}
    for text in (repr(settings), shown["MMAL_DATABASE_URL"], shown["MMAL_QUEUE_URL"]):
        assert "s3c" not in text
    assert "db" in shown["MMAL_DATABASE_URL"] or "redis" in shown["MMAL_DATABASE_URL"]
