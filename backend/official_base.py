"""The class that models of the official `label-studio-ml` server derive from, where it is installed."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from backend.settings import load_settings

log = logging.getLogger(__name__)

PACKAGE = "label-studio-ml"
# Version 1 of 2023, the newest on the package index, calls its models in another way.
OLDEST_MAJOR = 2


def official_base() -> type:
    """`LabelStudioMLBase` of version 2 or later; `object` where there is none."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return object
    if int(found.split(".")[0]) < OLDEST_MAJOR:
        log.info("%s %s is ignored: only version %d and later fit", PACKAGE, found, OLDEST_MAJOR)
        return object
    # Importing the package makes a cache file, by default in the working folder, which may be read-only.
    os.environ.setdefault("MODEL_DIR", str(load_settings().data_dir))
    try:
        base: type = import_module("label_studio_ml.model").LabelStudioMLBase
    except ImportError as error:
        log.warning("%s %s is installed and cannot be imported, so it is ignored: %s", PACKAGE, found, error)
        return object
    return base
