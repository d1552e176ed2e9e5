"""How long a project is left alone after a round that failed, and that what was asked for is asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.errors import LabelStudioRefused, LabelStudioUnreachable, PublishRefused, TokenRefused
from backend.rounds import pipeline
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import projects

UNANSWERED, OTHERWISE = projects.LONGEST_BACKOFF_UNANSWERED, projects.LONGEST_BACKOFF


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (LabelStudioUnreachable("away"), UNANSWERED),
        (TokenRefused("401"), UNANSWERED),
        (LabelStudioRefused("busy", status=502, detail=""), UNANSWERED),
        (LabelStudioRefused("not yours", status=403, detail=""), OTHERWISE),
        (PublishRefused("none stored"), OTHERWISE),
        (ValueError("a mistake of ours"), OTHERWISE),
    ],
)
def test_only_an_outage_of_label_studio_is_tried_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, longest: float
) -> None:
    def fail(services: Services, project_id: int) -> dict[str, int]:
        raise error

    monkeypatch.setattr(pipeline, "recover", fail)
    services = Services(Settings(data_dir=tmp_path, label_studio_api_key=SecretStr("none")))
    projects.remember(services.store, 1, state="attached", failures=20, round_requested="Start Training")
    before = services.store.clock()
    assert pipeline.run_round(services, 1, "here") is None
    project = projects.get(services.store, 1)
    assert before + longest <= project.round_not_before <= services.store.clock() + longest
    assert project.round_requested == "Start Training"
    assert project.last_error == f"{type(error).__name__}: {error}"
