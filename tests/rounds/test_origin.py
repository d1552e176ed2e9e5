"""A store knows which Label Studio its projects are in: the project of the same number elsewhere is left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.errors import LabelStudioUnreachable, ProjectOfAnother
from backend.labelstudio.records import ProjectInfo
from backend.rounds import connecting
from backend.rounds.doctor import examine
from backend.rounds.report import status_lines
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.rounds.sync import sync_project
from backend.rounds.worker import Worker
from backend.settings import Settings
from backend.store import origins, projects, tasks
from tests.rounds.test_config_changes import ANSWERS, LabelStudioOf, config

TRIAL, COMPANY = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 3, 3, 8, tzinfo=UTC)


class LabelStudioSince(LabelStudioOf):
    """A Label Studio whose project 1 was made at a time of its own; notes whatever would change something there."""

    def __init__(self, created_at: datetime, title: str) -> None:
        super().__init__(config("A", "B"))
        self.created_at, self.title = created_at, title
        self.changed: list[str] = []

    def project(self, project_id: int) -> ProjectInfo:
        if self.away:
            raise LabelStudioUnreachable("away")
        return replace(super().project(project_id), created_at=self.created_at, title=self.title)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.changed.append(name)
        raise AssertionError(f"{name} was asked of another Label Studio")


def backend_at(folder: Path, address: str, label_studio: LabelStudioSince) -> Services:
    """The backend, started with this address."""
    settings = Settings(
        data_dir=folder,
        label_studio_url=address,
        label_studio_api_key=SecretStr("none"),
        encoder="import:tests.live.toy_encoder:make",
    )
    services = Services(settings)
    services.__dict__["label_studio"] = label_studio
    return services


@pytest.fixture
def trial(tmp_path: Path) -> Services:
    services = backend_at(tmp_path, "http://trial:8080", LabelStudioSince(TRIAL, "Trial"))
    projects.remember(services.store, 1, state="attached", original={"sampling": "x"}, options={}, version="v3-auto")
    sync_project(services, 1)
    return services


@pytest.fixture
def company(tmp_path: Path, trial: Services) -> Services:
    del trial
    return backend_at(tmp_path, "http://company:8080", LabelStudioSince(COMPANY, "Company"))


def test_the_project_of_another_label_studio_is_neither_read_nor_published_to(company: Services) -> None:
    with pytest.raises(ProjectOfAnother):
        sync_project(company, 1, reconcile=True)
    project = projects.get(company.store, 1)
    assert (project.title, project.version) == ("Trial", "v3-auto")
    assert tasks.live_ids(company.store, 1) == set(ANSWERS)
    projects.request_round(company.store, 1, "Start Training was pressed", at_once=True)
    worker = Worker(company)
    for job in ("sync", "round", "trim", "embed"):
        worker.jobs[job].call_local(1)
    assert tasks.counts(company.store, 1, company.encoder_id).embedded == 0
    assert projects.get(company.store, 1).round_requested == "Start Training was pressed"
    assert worker._wanted(projects.get(company.store, 1)) in ([], ["sync"])
    assert company.label_studio.changed == []  # type: ignore[attr-defined]


def test_a_process_asks_before_it_does_anything_else_with_a_project(company: Services) -> None:
    Worker(company).jobs["round"].call_local(1)
    assert "ProjectOfAnother" in projects.get(company.store, 1).last_error
    with pytest.raises(ProjectOfAnother):
        connecting.attach_project(company, 1)


def test_status_and_doctor_name_both_and_the_ways_on(company: Services) -> None:
    [found] = [f for f in examine(company) if f.name == "project 1: Label Studio"]
    assert not found.ok
    said = "\n".join(status_lines(project_status(company, projects.get(company.store, 1))))
    for words in (found.remedy, said):
        assert "http://trial:8080" in words
        assert "http://company:8080" in words
        assert "MMAL_DATA_DIR" in words
        assert "mmal project detach --project 1" in words
    assert "PROBLEM" in said


def test_the_address_set_back_is_all_that_is_needed(tmp_path: Path, company: Services) -> None:
    with pytest.raises(ProjectOfAnother):
        sync_project(company, 1)
    back = backend_at(tmp_path, "http://trial:8080", LabelStudioSince(TRIAL, "Trial"))
    sync_project(back, 1)
    assert projects.get(back.store, 1).problem == ""


def test_a_label_studio_that_moved_goes_on(tmp_path: Path, trial: Services) -> None:
    del trial
    moved = backend_at(tmp_path, "https://label.example.org", LabelStudioSince(TRIAL, "Trial"))
    sync_project(moved, 1)
    noted = origins.find(moved.store, 1)
    assert noted is not None
    assert noted.address == "https://label.example.org"


def test_detach_forgets_what_is_elsewhere_and_attaching_then_begins_anew(company: Services) -> None:
    assert connecting.detach_project(company, 1) is False
    assert company.label_studio.changed == []  # type: ignore[attr-defined]
    project = projects.get(company.store, 1)
    assert (project.state, project.version, project.original) == ("detached", "", {})
    with pytest.raises(AssertionError, match="model_versions was asked"):
        connecting.attach_project(company, 1)  # the stand-in is read only
    sync_project(company, 1)
    assert projects.get(company.store, 1).title == "Company"


def test_while_nobody_can_tell_what_is_known_is_embedded(tmp_path: Path, trial: Services) -> None:
    del trial
    away = LabelStudioSince(TRIAL, "Trial")
    away.away = True
    services = backend_at(tmp_path, "http://trial:8080", away)
    Worker(services).jobs["embed"].call_local(1)
    assert tasks.counts(services.store, 1, services.encoder_id).embedded == len(ANSWERS)
