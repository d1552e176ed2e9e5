"""Settings come from where they are meant to, and from nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.server.app import create_app
from backend.server.gunicorn_app import WebProcess
from backend.settings import Settings, all_variables
from scripts import demo

REPOSITORY = Path(__file__).parents[1]
ELSEWHERE = "postgresql://mmal:word@db.example.org/production"


@pytest.mark.parametrize("variable", sorted(all_variables()))
def test_an_empty_variable_means_the_default(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "")
    assert Settings() == Settings(_env_file=None)
    monkeypatch.delenv(variable)
    assert Settings().data_dir == Path("mmal-data")


def test_tests_never_see_the_backend_of_the_person_who_runs_them(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LABEL_STUDIO_API_KEY=theirs\n")
    says = "import tests.conftest; from backend.settings import Settings as S; print(S().store_url, S().rows()[1][1])"
    environment = os.environ | {"MMAL_DATABASE_URL": ELSEWHERE, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", says], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"sqlite:///{tmp_path}/mmal-data/mmal.sqlite3"]


def test_the_demo_has_a_store_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Server:
        url = "http://127.0.0.1:8080"

        class admin:
            token = "t"

    (tmp_path / ".env").write_text(f"MMAL_QUEUE_URL=redis://{tmp_path}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    monkeypatch.setenv("MMAL_DATABASE_URL", ELSEWHERE)
    monkeypatch.setattr(sys, "argv", ["demo", "--folder", str(tmp_path)])
    seen = []
    monkeypatch.setattr(demo, "_run", lambda folder, *_: seen.append(demo._settings(folder, Server(), 9)))  # type: ignore[arg-type]
    assert demo.main() == 0
    assert (seen[0].database_url, seen[0].queue_url, seen[0].port) == ("", "", 9)


@pytest.mark.parametrize(("host", "bound"), [("::1", "[::1]:9090"), ("127.0.0.1", "127.0.0.1:9090")])
def test_an_address_of_either_kind_can_be_listened_at(host: str, bound: str) -> None:
    assert WebProcess(Settings(host=host), create_app).cfg.bind == [bound]


def test_files_with_passwords_are_kept_out_of_the_repository() -> None:
    assert {".env", "docker-compose.override.yml"} <= set((REPOSITORY / ".gitignore").read_text().split())
