"""The official server's package: the real one where version 2 is installed, and the stand-in for it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path

from backend.official_base import OLDEST_MAJOR, PACKAGE

REPOSITORY = Path(__file__).parents[1]
STAND_IN = Path(__file__).parent / "fixtures" / "label_studio_ml_stand_in"


def installed() -> bool:
    """Whether the real package is importable here."""
    try:
        return int(importlib.metadata.version(PACKAGE).split(".")[0]) >= OLDEST_MAJOR
    except importlib.metadata.PackageNotFoundError:
        return False


def python_path(environment: Mapping[str, str], *, stand_in: bool) -> str:
    """PYTHONPATH of a process that shall find this repository and, where asked for, the stand-in."""
    paths = [str(REPOSITORY), *([str(STAND_IN)] if stand_in else []), environment.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, paths))
