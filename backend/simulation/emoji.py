"""Reads picture, CLDR label and subgroup of every emoji in @lobehub/fluent-emoji-3d and emojibase-data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.errors import DataSourceUnavailable


@dataclass(frozen=True)
class Emoji:
    """One emoji without skin tone."""

    picture: Path
    label: str
    subgroup: str


def read_emoji(pictures: Path, words: Path) -> Iterator[Emoji]:
    """Yield the emoji that have both a picture and a subgroup, in Unicode's order.

    Parameters
    ----------
    pictures, words
        Unpacked @lobehub/fluent-emoji-3d and emojibase-data.

    Raises
    ------
    DataSourceUnavailable
        A folder is not that package.
    """
    try:
        entries = json.loads((words / "en" / "data.json").read_text(encoding="utf-8"))
        subgroups = json.loads((words / "meta" / "groups.json").read_text(encoding="utf-8"))["subgroups"]
    except OSError as error:
        raise DataSourceUnavailable(f"{words} is not emojibase-data: {error}. Unpack it again.") from error
    files = {_plain(path.stem): path for path in sorted((pictures / "assets").glob("*.webp"))}
    if not files:
        raise DataSourceUnavailable(f"{pictures} holds no assets/*.webp. Unpack @lobehub/fluent-emoji-3d again.")
    for entry in entries:
        picture = files.get(_plain(entry["hexcode"]))
        if picture is not None and "subgroup" in entry:
            yield Emoji(picture, entry["label"], subgroups[str(entry["subgroup"])])


def _plain(code_points: str) -> str:
    """Drop the variation selector, which one package writes and the other omits."""
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")
