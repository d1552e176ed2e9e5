"""A round that has ended stays as it ended: published, taken over by another worker, or given up once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from backend.errors import LabelStudioUnreachable
from backend.rounds.pipeline import recover, uncleared
from backend.rounds.services import Services
from backend.rounds.worker import Worker
from backend.settings import Settings
from backend.store import projects, rounds
from backend.store.tables import Lease
from tests.rounds.served_queue import ServedQueue, connected_queue, round_for
from tests.rounds.test_config_changes import config
from tests.rounds.test_cut_off import Killed
from tests.rounds.test_job_queue import waiting


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))


@pytest.fixture
def label_studio(services: Services) -> ServedQueue:
    """It serves the first queue of a project."""
    told = connected_queue(services, config("A", "B"))
    assert round_for(services, "first queue") is not None
    assert set(told.model_versions(1)) == {"v1-auto"}
    return told


def statuses(services: Services) -> dict[str, str]:
    return {one.version: one.status for one in rounds.of_project(services.store, 1)}


def fail_to_clear_away(services: Services, label_studio: ServedQueue) -> None:
    label_studio.undeletable = True
    round_for(services, "8 of 10 tasks of the batch are answered")
    label_studio.undeletable = False


def test_what_fails_after_the_switch_makes_no_failed_round_and_asks_for_no_other(
    services: Services, label_studio: ServedQueue
) -> None:
    fail_to_clear_away(services, label_studio)
    assert statuses(services) == {"v1-auto": "published", "v2-auto": "published"}
    project = projects.get(services.store, 1)
    assert (project.version, project.round_requested, project.failures) == ("v2-auto", "", 0)
    assert project.round_not_before == 0.0
    assert "deleting v1-auto took too long" in project.last_error


def test_a_switch_that_took_effect_though_its_answer_was_lost_is_no_failed_round(
    services: Services, label_studio: ServedQueue
) -> None:
    def switch_and_time_out(project_id: int, version: str) -> None:
        label_studio.serving = version
        raise LabelStudioUnreachable("no answer within 60 s")

    label_studio.__dict__["set_model_version"] = switch_and_time_out
    round_for(services, "Start Training was pressed")
    project = projects.get(services.store, 1)
    assert statuses(services)["v2-auto"] == "published"
    assert (project.version, project.round_requested, project.failures) == ("v2-auto", "", 0)
    assert "no answer within 60 s" in project.last_error


def test_what_a_round_could_not_clear_away_goes_soon_after_the_next_look(
    services: Services, label_studio: ServedQueue
) -> None:
    worker = Worker(services)
    worker.look()  # trims, and would not again for a minute
    worker.huey.storage.flush_queue()
    fail_to_clear_away(services, label_studio)
    worker.sync(1)
    worker.look()
    assert ("trim", 1) in waiting(worker)
    worker.trim(1)
    assert set(label_studio.model_versions(1)) == {"v2-auto"}
    assert uncleared(services, 1) is None
    assert statuses(services) == {"v1-auto": "published", "v2-auto": "published"}


def test_versions_do_not_pile_up_while_none_can_be_deleted(services: Services, label_studio: ServedQueue) -> None:
    label_studio.undeletable = True
    for _ in range(4):
        round_for(services, "Start Training was pressed")
    assert set(label_studio.model_versions(1)) == {"v1-auto", "v2-auto"}
    assert projects.get(services.store, 1).round_requested == "Start Training was pressed"
    label_studio.undeletable = False
    round_for(services, "Start Training was pressed")
    assert set(label_studio.model_versions(1)) == {"v3-auto"}


def test_a_worker_that_wakes_up_after_its_round_was_taken_over_touches_nothing(
    services: Services, label_studio: ServedQueue
) -> None:
    def taken_over_at(point: str) -> None:
        if point == "explained":
            # The call that switches goes through, and this worker stands still. Another one finds out.
            label_studio.set_model_version(1, "v2-auto")
            with services.store.statement() as session:
                session.execute(update(Lease).values(holder="another worker"))
            recover(services, 1)

    ended = round_for(services, "Start Training was pressed", hold=taken_over_at)
    assert ended is not None and (ended.version, ended.status, ended.error) == ("v2-auto", "published", "")
    project = projects.get(services.store, 1)
    assert (project.version, project.round_requested, project.failures) == ("v2-auto", "", 0)
    assert (project.last_error, project.round_not_before) == ("", 0.0)


def test_a_round_that_another_worker_gave_up_is_not_given_up_twice(
    services: Services, label_studio: ServedQueue
) -> None:
    def fail_after_another_gave_up(point: str) -> None:
        if point == "fitted":
            recover(services, 1)
            raise OSError("this worker had not noticed")

    round_for(services, "Start Training was pressed", hold=fail_after_another_gave_up)
    project = projects.get(services.store, 1)
    assert statuses(services)["v2-auto"] == "abandoned"
    assert (project.failures, project.round_requested) == (1, "Start Training was pressed")
    assert project.last_error == "round v2-auto was cut off: its worker died after 'fitted'"


def test_a_worker_that_dies_as_it_gives_a_round_up_loses_no_request(
    services: Services, label_studio: ServedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    def fail(point: str) -> None:
        raise OSError(point)

    with monkeypatch.context() as at_the_end, pytest.raises(Killed):
        at_the_end.setattr(projects, "note_failure", die)
        round_for(services, "options changed", hold=fail)
    recover(services, 1)
    assert statuses(services)["v2-auto"] == "abandoned"
    assert projects.get(services.store, 1).round_requested == "options changed"
