"""What can happen to an SQLite file, and a disk on which it cannot grow."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def overwrite_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"not a database any more" * 20)


def overwrite_pages(path: Path) -> None:
    """All but the first page, which says that this is a database."""
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES = [overwrite_header, overwrite_pages, cut_in_half, cut_to_nothing]


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Until the block ends no file of this process can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
