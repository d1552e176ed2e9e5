"""Reads picture, title and folder of every drawing in the Debian packages openclipart-png and openclipart-svg.

The drawings are dedicated to the public domain. Traps that are handled here: one file in eight of those with a
useful title is a link to another folder, titles are boilerplate ("", "Untitled", one title for a whole series),
keywords repeat the folder name (so they are not read), and one PNG has 231 million pixels.
"""

from __future__ import annotations

import html
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from backend.errors import DataSourceUnavailable

PNG_FOLDER = Path("usr/share/openclipart/png")
SVG_FOLDER = Path("usr/share/openclipart/svg")
PACKAGES = ("openclipart-png", "openclipart-svg")
MAX_PIXELS = 4_000_000
# A title and description shared by more files than this (links counted) describe none of them.
MAX_SHARED = 2
_WORK = "{http://web.resource.org/cc/}Work"
_DC = "{http://purl.org/dc/elements/1.1/}"
_CREDIT = re.compile(r"^\s*clip-?art by .{3,40}? - ", re.IGNORECASE)
_SERIAL = re.compile(r"(?:[\s_\-.,#(]*\d+|[\s_\-.,#(]+[ivx]+)\)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Drawing:
    """One drawing: ``path`` below the PNG folder, ``folders`` from the top one down, its own words."""

    path: str
    folders: tuple[str, ...]
    title: str
    description: str


def read_drawings(unpacked: Path) -> list[Drawing]:
    """Return all drawings with a telling title, sorted by path.

    Parameters
    ----------
    unpacked
        Folder into which both packages were unpacked (``dpkg -x``).

    Raises
    ------
    DataSourceUnavailable
        The folder does not hold both packages.
    """
    png_root, svg_root = unpacked / PNG_FOLDER, unpacked / SVG_FOLDER
    for folder in (png_root, svg_root):
        if not folder.is_dir():
            wanted = folder.relative_to(unpacked)
            raise DataSourceUnavailable(f"{unpacked} lacks {wanted}. Unpack {' and '.join(PACKAGES)} into it.")
    words = {}
    for png in sorted(png_root.rglob("*.png")):
        relative = png.relative_to(png_root)
        svg = (svg_root / relative).with_suffix(".svg")
        if svg.is_file():
            words[relative] = _words(svg)
    shared = Counter(words.values())
    return [
        Drawing(relative.as_posix(), relative.parts[:-1], *own)
        for relative, own in words.items()
        if own[0] and shared[own] <= MAX_SHARED and _is_usable(png_root / relative)
    ]


def spoken_title(title: str) -> str:
    """Return the title without credit, file-name punctuation and serial number, for people to read."""
    text = _CREDIT.sub("", html.unescape(title)).replace("_", " ")
    text = re.sub(r"\.(svg|png)$", "", " ".join(text.split()), flags=re.IGNORECASE)
    return _SERIAL.sub("", text).strip(" -_.,")


def _words(svg: Path) -> tuple[str, str]:
    """Return title and description of the work itself (not of its licence or publisher)."""
    try:
        root = ElementTree.parse(svg).getroot()
    except ElementTree.ParseError:
        return "", ""
    work = root.find(f".//{_WORK}")
    if work is None:
        return "", ""
    title, description = (" ".join((work.findtext(_DC + name) or "").split()) for name in ("title", "description"))
    return title, description


def _is_usable(png: Path) -> bool:
    if png.is_symlink():
        return False
    with open(png, "rb") as file:
        header = file.read(24)
    if header[12:16] != b"IHDR":
        return False
    # Read by hand: Pillow warns about, or refuses, sizes that are only to be looked at here.
    width, height = struct.unpack(">II", header[16:24])
    return 0 < width * height <= MAX_PIXELS
