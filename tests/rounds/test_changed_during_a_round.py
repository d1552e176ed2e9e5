"""Options and label configs that change while a round is open: another follows, and the record says what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.records import MLBackend
from backend.rounds.connecting import set_options
from backend.rounds.pipeline import recover, run_round
from backend.rounds.services import Services, options_of
from backend.rounds.sync import sync_project
from backend.rounds.worker import Worker
from backend.settings import Settings
from backend.store import projects, rounds
from backend.store.tables import Round
from tests.rounds.served_queue import connected_queue, round_for
from tests.rounds.test_config_changes import MANY_TO_MANY, config
from tests.rounds.test_cut_off import Killed

ONE, SEVERAL = config("A", "B"), config("A", "B", choice="multiple")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))


def at(wanted: str, do: Callable[[], object]) -> Callable[[str], None]:
    """Do something when a round reaches this point."""

    def hold(point: str) -> None:
        if point == wanted:
            do()

    return hold


def requested(services: Services) -> str:
    return projects.get(services.store, 1).round_requested


def latest(services: Services) -> Round:
    return rounds.of_project(services.store, 1, limit=1)[0]


def switch(services: Services, **options: Any) -> None:
    set_options(services, 1, options, why="the test", tell=False)


def test_options_that_change_while_the_first_queue_is_chosen_ask_for_another(services: Services) -> None:
    connected_queue(services, ONE)
    round_for(services, "first queue", hold=at("fitted", lambda: switch(services, strategy="margin")))
    assert projects.get(services.store, 1).version == "v1-auto"
    assert requested(services) == "options changed through the test"
    run_round(services, 1, "a worker")
    assert projects.get(services.store, 1).version == "v2-margin"
    assert requested(services) == ""


def test_options_that_change_before_any_queue_is_chosen_ask_for_nothing(services: Services) -> None:
    connected_queue(services, ONE)
    switch(services, strategy="margin")
    assert requested(services) == ""
    round_for(services, "first queue")
    assert latest(services).version == "v1-margin"


def test_a_label_config_that_changes_while_the_first_queue_is_chosen_asks_for_another(services: Services) -> None:
    told = connected_queue(services, ONE)

    def change() -> None:
        told.label_config = config("B", "A")
        sync_project(services, 1)

    round_for(services, "first queue", hold=at("fitted", change))
    assert requested(services) == "the label config changed"


def test_the_first_reading_beside_the_first_round_asks_for_no_other(services: Services) -> None:
    connected_queue(services, ONE)

    def first_reading() -> None:
        projects.remember(services.store, 1, schema_hash="", watermark="")
        sync_project(services, 1)

    round_for(services, "first queue", hold=at("fitted", first_reading))
    assert requested(services) == ""


@pytest.mark.parametrize("first", [True, False])
def test_a_label_config_that_changes_before_any_round_asks_for_nothing(services: Services, first: bool) -> None:
    told = connected_queue(services, ONE)
    told.label_config = config("B", "A")
    sync_project(services, 1, in_round=not first)
    assert requested(services) == ""


def test_a_round_that_finds_its_strategy_unsuited_is_recorded_as_what_it_did(services: Services) -> None:
    told = connected_queue(services, ONE, strategy="dropquery")
    told.label_config = SEVERAL
    round_for(services, "first queue")
    recorded = latest(services)
    assert (recorded.version, recorded.strategy, recorded.options["strategy"]) == ("v1-auto", "auto", "auto")
    assert (told.serving, set(told.model_versions(1))) == ("v1-auto", {"v1-auto"})


def test_a_renamed_round_that_is_cut_off_before_its_bookkeeping_is_adopted(services: Services) -> None:
    told = connected_queue(services, ONE, strategy="dropquery")
    told.label_config = SEVERAL

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        round_for(services, "first queue", hold=at("switched", die))
    recover(services, 1)
    assert (projects.get(services.store, 1).version, latest(services).status) == ("v1-auto", "published")


@pytest.mark.parametrize("before", [False, True])
def test_what_a_round_showed_is_what_is_recorded_and_not_what_was_set_as_it_was_opened(
    services: Services, before: bool
) -> None:
    told = connected_queue(services, ONE, prelabel=before)
    round_for(services, "first queue", hold=at("recovered", lambda: switch(services, prelabel=not before)))
    shown = sum(bool(row["result"]) for row in told.rows)
    assert bool(shown) != before
    recorded = latest(services)
    assert (recorded.status, recorded.counts["prefilled"]) == ("published", shown)
    assert recorded.options == options_of(projects.get(services.store, 1)).model_dump()


@pytest.mark.parametrize("in_round", [False, True])
def test_label_studios_form_shows_what_is_left_after_the_next_look(services: Services, in_round: bool) -> None:
    told = connected_queue(services, ONE, strategy="badge", batch_size=7)
    ours = {"id": 5, "url": services.settings.backend_url, "title": "mmal", "project": 1}
    forms: list[dict[str, Any]] = []
    told.__dict__["ml_backends"] = lambda project_id: [MLBackend.read(ours)]
    told.__dict__["update_backend"] = lambda backend, *, options: forms.append(options)
    told.label_config = MANY_TO_MANY
    sync_project(services, 1, in_round=in_round)
    assert forms == []
    worker = Worker(services)
    worker.sync(1)
    worker.sync(1)
    assert forms == [{"strategy": "pair_likely", "batch_size": 7, "one_to_one": False}]
