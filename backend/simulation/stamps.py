"""Reads picture, English caption and top folder of the stamps in the Debian package tuxpaint-stamps-default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.errors import DataSourceUnavailable

PACKAGE = "tuxpaint-stamps-default"
_STAMPS = Path("usr/share/tuxpaint/stamps")
# Letters and digits are pictures of their own caption.
_SKIPPED = "alphabets"


@dataclass(frozen=True)
class Stamp:
    """One stamp."""

    picture: Path
    caption: str
    folder: str


def read_stamps(unpacked: Path) -> Iterator[Stamp]:
    """Yield the stamps that have a PNG and a caption, sorted by path.

    Raises
    ------
    DataSourceUnavailable
        The folder does not hold the package.
    """
    root = unpacked / _STAMPS
    if not root.is_dir():
        raise DataSourceUnavailable(f"{unpacked} lacks {_STAMPS}. Unpack {PACKAGE} into it.")
    for picture in sorted(root.rglob("*.png")):
        words = picture.with_suffix(".txt")
        folders = picture.relative_to(root).parts
        if picture.is_symlink() or _SKIPPED in folders or not words.is_file():
            continue
        # The first line is English; the others are translations.
        caption = words.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        if caption:
            yield Stamp(picture, caption, folders[0])
