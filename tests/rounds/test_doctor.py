"""What `mmal doctor` says before any project is looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backend.rounds.doctor import examine
from backend.rounds.services import Services
from backend.settings import Settings


def test_a_disk_without_room_is_named_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))
    [roomy] = [finding for finding in examine(services) if finding.name == "disk"]
    assert roomy.ok
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    [full] = [finding for finding in examine(services) if finding.name == "disk"]
    assert not full.ok
    assert "0 MB free" in full.detail
    assert str(tmp_path) in full.remedy
