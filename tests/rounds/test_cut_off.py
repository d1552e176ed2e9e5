"""A worker that dies in a round: what the round was asked for is asked for again, after a pause that grows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.rounds.pipeline import recover, run_round
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import projects, rounds


class Killed(BaseException):
    """The worker is gone: nothing of the round is tidied up."""


class LabelStudioServing:
    """A Label Studio that serves a version and holds no rows of any other."""

    def __init__(self, version: str = "") -> None:
        self.version = version

    def project(self, project_id: int) -> SimpleNamespace:
        return SimpleNamespace(model_version=self.version)

    def model_versions(self, project_id: int) -> dict[str, int]:
        return {self.version: 1} if self.version else {}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    services = Services(Settings(data_dir=tmp_path))
    services.__dict__["label_studio"] = LabelStudioServing()
    projects.remember(services.store, 1, state="attached", round_requested="Start Training was pressed")
    return services


def die_in_a_round(services: Services) -> None:
    def die(point: str) -> None:
        raise Killed

    projects.remember(services.store, 1, round_not_before=0.0)
    with pytest.raises(Killed):
        run_round(services, 1, "a worker", die)


def test_what_was_asked_for_survives_the_death_of_the_worker(services: Services) -> None:
    die_in_a_round(services)
    assert projects.get(services.store, 1).round_requested == ""
    recover(services, 1)
    project = projects.get(services.store, 1)
    assert project.round_requested == "Start Training was pressed"
    assert project.last_error == "round v1-auto was cut off: its worker died after 'recovered'"
    assert [r.status for r in rounds.of_project(services.store, 1)] == ["abandoned"]


def test_what_was_asked_for_survives_a_death_before_the_round_is_opened(services: Services) -> None:
    def die(project_id: int) -> None:
        raise Killed

    services.__dict__["label_studio"] = SimpleNamespace(project=die)
    with pytest.raises(Killed):
        run_round(services, 1, "a worker")
    assert projects.get(services.store, 1).round_requested == "Start Training was pressed"


def test_what_was_asked_for_during_the_round_is_kept_too(services: Services) -> None:
    die_in_a_round(services)
    projects.request_round(services.store, 1, "options changed")
    recover(services, 1)
    assert projects.get(services.store, 1).round_requested == "options changed"


def test_a_round_that_kills_every_worker_is_tried_again_after_longer_and_longer_pauses(services: Services) -> None:
    pauses = []
    for _ in range(4):
        die_in_a_round(services)
        now = services.store.clock()
        # The next worker finds it out in the look at Label Studio, or as it takes up what else was asked for.
        recover(services, 1)
        pauses.append(round(projects.get(services.store, 1).round_not_before - now))
    assert pauses == [2, 4, 8, 16]


def test_a_worker_that_takes_up_a_request_waits_out_the_pause_after_a_round_that_was_cut_off(
    services: Services,
) -> None:
    die_in_a_round(services)
    projects.request_round(services.store, 1, "options changed")
    assert run_round(services, 1, "another worker") is None
    [cut_off] = rounds.of_project(services.store, 1)
    assert cut_off.status == "abandoned"
    assert projects.get(services.store, 1).round_requested == "options changed"


def test_a_round_that_was_published_before_its_worker_died_is_not_asked_for_again(services: Services) -> None:
    die_in_a_round(services)
    services.__dict__["label_studio"] = LabelStudioServing("v1-auto")
    recover(services, 1)
    project = projects.get(services.store, 1)
    assert (project.version, project.round_requested, project.failures) == ("v1-auto", "", 0)
