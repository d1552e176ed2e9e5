"""What only a database server can do: be out of reach, restart, refuse, and be shared by hosts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.errors import StoreAddressInvalid, StoreError, StoreUnreachable
from backend.settings import Settings
from backend.store import Store, events, leases, open_store, projects, tasks
from backend.store.tables import Event
from tests.live.backend_process import free_port, wait_for
from tests.team_servers import PostgresServer, shared_postgres


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two hosts on one database."""
    settings = Settings(data_dir=tmp_path, database_url=shared_postgres().new_database())
    stores = open_store(settings), open_store(settings)
    yield stores
    for store in stores:
        store.engine.dispose()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mysql://somebody:s3cret@db/mmal", "begins with 'mysql'"),
        ("s3cret", "cannot be read as an address"),
        ("postgresql://somebody:s3cret@db:port/mmal", "cannot be read as an address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, address: str, words: str
) -> None:
    with pytest.raises(StoreAddressInvalid, match=f"MMAL_DATABASE_URL.*{words}|{words}") as refused:
        open_store(Settings(data_dir=tmp_path, database_url=address))
    assert "postgresql://USER:PASSWORD@HOST:5432/DATABASE" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_server_that_is_out_of_reach_or_refuses_is_told_without_the_password(tmp_path: Path) -> None:
    right = shared_postgres().address("postgres")
    for address, words in (
        (f"postgresql://somebody:s3cret@127.0.0.1:{free_port()}/mmal", "refused"),
        (right.replace(shared_postgres().password, "s3cret"), "password authentication failed"),
        (shared_postgres().address("no_such_database"), "does not exist"),
    ):
        with pytest.raises(StoreUnreachable, match="MMAL_DATABASE_URL") as refused:
            open_store(Settings(data_dir=tmp_path, database_url=address))
        assert words in str(refused.value)
        assert "s3cret" not in str(refused.value)
        assert shared_postgres().password not in str(refused.value)


def test_work_goes_on_after_a_restart_of_the_server_and_nothing_committed_is_lost(tmp_path: Path) -> None:
    with PostgresServer() as server:
        store = open_store(Settings(data_dir=tmp_path, database_url=server.new_database()))
        projects.remember(store, 1, state="attached")
        with leases.held(store, "round 1", "a worker", seconds=30) as lease:
            assert lease is not None
            server.stop()
            with pytest.raises(StoreUnreachable):
                projects.get(store, 1)
            server.start()
            assert projects.get(store, 1).state == "attached"
            lease.check()
        events.add(store, 1, "AFTER")
        assert events.waiting(store) == 1
        store.engine.dispose()


def test_two_hosts_that_change_one_project_at_once_wait_for_each_other(shared: tuple[Store, Store]) -> None:
    first, second = shared
    projects.remember(first, 1, state="attached")
    projects.remember(first, 2, state="attached")

    def fail(store: Store) -> None:
        for _ in range(20):
            projects.record_failure(store, 1, "down", pause=True)

    hosts = [threading.Thread(target=fail, args=[store]) for store in shared]
    with first.writing(1):
        for host in hosts:
            host.start()
        # Another project, and what needs no look at the project, do not wait.
        assert tasks.remember(second, 2, [tasks.Inputs(1, "picture", "text")]) == 1
        events.add(second, 1, "ANNOTATION_CREATED")
        assert all(host.is_alive() for host in hosts)
    for host in hosts:
        host.join()
    assert projects.get(first, 1).failures == 40


def test_two_hosts_that_remember_the_same_tasks_at_once_count_each_once(shared: tuple[Store, Store]) -> None:
    changed: list[int] = []
    inputs = [tasks.Inputs(n, f"picture {n}", f"text {n}") for n in range(700)]
    hosts = [
        threading.Thread(target=lambda store=store: changed.append(tasks.remember(store, 1, inputs)))
        for store in shared
    ]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert sorted(changed) == [0, 700]


def test_an_event_that_is_committed_after_a_later_one_was_seen_is_not_forgotten(shared: tuple[Store, Store]) -> None:
    slow, quick = shared
    with slow.statement() as session:
        session.add(Event(project_id=1, action="START_TRAINING", received_at=0.0))
        session.flush()
        events.add(quick, 1, "ANNOTATION_CREATED")
        seen, _ = events.peek(quick)
    events.forget(quick, seen)
    assert events.peek(quick)[1] == {1: {"START_TRAINING": 1}}


def test_a_host_whose_clock_is_wrong_neither_takes_nor_loses_a_lease(
    shared: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shared
    with leases.held(first, "round 1", "a", seconds=30) as lease:
        monkeypatch.setattr("time.time", lambda: 10.0**10)
        assert leases.acquire(second, "round 1", "b", seconds=30) is None
        monkeypatch.setattr("time.time", lambda: 0.0)
        assert leases.acquire(second, "round 1", "b", seconds=30) is None
        assert lease is not None
        lease.check()
        assert leases.held_now(second, 30) == {"round 1": "a"}


def test_a_transaction_of_a_host_that_stalls_does_not_hold_the_others_up(shared: tuple[Store, Store]) -> None:
    first, second = shared
    projects.remember(first, 1, state="attached")
    done = threading.Event()

    def change() -> None:
        projects.record_failure(second, 1, "noted after all")
        done.set()

    other = threading.Thread(target=change)
    with pytest.raises(StoreError), first.writing(1) as session:
        session.execute(text("SET idle_in_transaction_session_timeout = '1s'"))
        other.start()
        wait_for("the other host to get its turn", done.is_set)
        session.execute(text("SELECT 1"))
    other.join()
    assert projects.get(first, 1).last_error == "noted after all"


def test_text_with_a_nul_is_kept_and_not_taken_for_a_change_at_every_look(store: Store) -> None:
    odd = [tasks.Inputs(1, "picture", "nul \0 inside")]
    assert tasks.remember(store, 1, odd) == 1
    assert tasks.remember(store, 1, odd) == 0
    [task] = tasks.to_embed(store, 1, "e", 10)
    assert task.text == "nul \ufffd inside"
    projects.remember(store, 1, last_error="nul \0 here")
    tasks.label(store, 1, [tasks.Labelling(1, "label", ["a\0b"], [{"annotation_id": 5, "task_id": 1}])])
    assert projects.get(store, 1).last_error.startswith("nul ")
