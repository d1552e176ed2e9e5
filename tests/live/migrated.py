"""Label Studio's database after its first start, kept in `.cache`: migrating takes a minute, later starts 5 s."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from backend.labelstudio.local_server import LocalLabelStudio
from tests.team_servers import shared_postgres

CACHE = Path(__file__).resolve().parents[2] / ".cache"
DUMP = "database.sql"


def copy_of_sqlite(command: Path, folder: Path) -> None:
    """A data folder of Label Studio on SQLite."""

    def migrate(growing: Path) -> None:
        with LocalLabelStudio(growing, command):
            pass

    shutil.copytree(_once(f"label-studio-{_version(command)}", migrate), folder)


def copy_on_postgresql(command: Path, folder: Path) -> dict[str, str]:
    """A data folder of Label Studio on PostgreSQL, and the variables that lead it to a database of its own."""

    def migrate(growing: Path) -> None:
        address = shared_postgres().new_database()
        with LocalLabelStudio(growing, command, environment=variables(address)):
            pass
        shared_postgres().dump(address, growing / DUMP)

    shutil.copytree(_once(f"label-studio-{_version(command)}-postgresql", migrate), folder)
    return variables(shared_postgres().new_database(folder / DUMP))


def variables(address: str) -> dict[str, str]:
    """What Label Studio's environment must say to use this PostgreSQL database."""
    parts = urlsplit(address)
    return {
        "DJANGO_DB": "default",
        "POSTGRE_HOST": str(parts.hostname),
        "POSTGRE_PORT": str(parts.port),
        "POSTGRE_USER": str(parts.username),
        "POSTGRE_PASSWORD": str(parts.password),
        "POSTGRE_NAME": parts.path.lstrip("/"),
    }


def _version(command: Path) -> str:
    script = "import importlib.metadata as m; print(m.version('label-studio'))"
    python = command.with_name("python")
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def _once(name: str, migrate: Callable[[Path], None]) -> Path:
    ready, growing = CACHE / name, CACHE / f"{name}.growing"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "label-studio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(growing, ignore_errors=True)
            migrate(growing)
            (growing / "label-studio.log").unlink()
            growing.rename(ready)
    return ready
