"""What a person on call relies on: a backup that goes on where it was made, lines that say what they belong to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.pipeline import POINTS
from backend.store import rounds
from tests.live.loop import Loop
from tests.team_servers import ON_POSTGRESQL

pytestmark = pytest.mark.live


def test_after_the_data_folder_was_lost_a_restored_backup_goes_on_with_all_labels(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {"batch_size": 8, "queue_size": 24, "poll_seconds": 1, "refresh_share": 1.0}
    environment = {"MMAL_LOG_FORMAT": "json", "MMAL_LOG_LEVEL": "DEBUG"}
    archive = tmp_path / "backup.tar.gz"
    with Loop(label_studio, tmp_path, tasks=48, options=options, environment=environment) as loop:
        loop.wait_for_version()
        loop.label_batch(4)
        loop.wait_for_labels(4)
        made = loop.backend.cli("backup", str(archive))
        assert made.returncode == 0, made.stderr
        loop.label_batch(3)
        loop.wait_for_labels(7)
        refused = loop.backend.cli("restore", str(archive), "--replace")
        assert refused.returncode == 2
        assert "StoreInUse: A worker is running" in refused.stderr
        loop.backend.stop()
        for path in loop.backend.data_dir.iterdir():
            if path != loop.backend.log:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        replacing = []
        if ON_POSTGRESQL:  # whose database did not go with the folder
            refused = loop.backend.cli("restore", str(archive))
            assert refused.returncode == 2
            assert "StoreNotEmpty: " in refused.stderr
            replacing = ["--replace"]
        restored = loop.backend.cli("restore", str(archive), *replacing)
        assert restored.returncode == 0, restored.stderr
        loop.backend.start()
        loop.wait_for_labels(7)
        loop.ask_for_round()
        [latest] = rounds.of_project(loop.services.store, loop.project_id, "published", limit=1)
        assert latest.counts["labels"] == 7
        assert latest.counts["embedded"] == 48
        served = loop.label_next()
        assert served.id == loop.queued_ids()[0]
    check_lines([json.loads(line) for line in loop.backend.log.read_text().splitlines()], loop.project_id)


def check_lines(lines: list[dict[str, Any]], project_id: int) -> None:
    """Every line of a round carries its id, and every line of a request one of its own."""
    begun = [line for line in lines if line["message"].startswith("round v") and " begins: " in line["message"]]
    assert len(begun) >= 2
    steps = [line for line in lines if line["message"].split(" after ")[0] in POINTS]
    for begin in begun:
        own = [line["message"].split(" after ")[0] for line in steps if line["round_id"] == begin["round_id"]]
        assert own == list(POINTS)
    assert {(line["job"], line["project_id"]) for line in [*begun, *steps]} == {("round", project_id)}
    requests = [line for line in lines if line["logger"] == "backend.server.request_ids"]
    assert len({line["request_id"] for line in requests}) == len(requests) > 0
