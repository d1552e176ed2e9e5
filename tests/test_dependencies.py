"""What is installed is written down to the version: an old commit gets what it was tested with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def named(lines: Iterable[str]) -> dict[str, Requirement]:
    """Requirements by their canonical name."""
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


PINNED = named((REPOSITORY / "constraints.txt").read_text().splitlines())


def test_every_requirement_has_one_version_that_it_allows() -> None:
    wanted = named((REPOSITORY / "requirements.txt").read_text().splitlines())
    for extra in EXTRAS.values():
        wanted |= named(extra)
    del wanted["mmal-backend"]
    for name, requirement in wanted.items():
        [pin] = PINNED[name].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), name


def test_the_versions_written_down_are_those_that_run_here() -> None:
    wanted = named((REPOSITORY / "requirements.txt").read_text().splitlines())
    for name in wanted:
        assert PINNED[name].specifier.contains(version(name)), f"{name} {version(name)}: run `make constraints`"
