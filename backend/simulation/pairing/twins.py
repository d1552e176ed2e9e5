"""Near-twins in the manner of ColorSwap: couples of pictures whose captions have the same words, two colours swapped.

A drawing of the Fluent emoji is painted in one colour and put on a ground of another, "a red dog on a blue ground";
its twin has the colours the other way round. Each drawing serves one couple. Ours; ColorSwap itself (Burapacheep et
al., 2024) has generated scenes that people wrote captions for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageOps

from backend.simulation.emoji import Emoji, read_emoji
from backend.simulation.packages import npm_package
from backend.simulation.pairs import PAIRS_FILE, write_pairs

NAME = "twins"
# The set that the drawings are taken from.
SOURCE = "fluent57"
COUPLES = 550
SIZE = 224
COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (205, 30, 35),
        "orange": (245, 140, 20),
        "yellow": (240, 215, 40),
        "green": (40, 150, 60),
        "blue": (35, 90, 205),
        "purple": (130, 60, 170),
        "pink": (245, 130, 180),
        "brown": (125, 80, 45),
    }
)
# Things that can be of any colour; no faces, people, signs and flags.
_THINGS = frozenset(
    {"animal", "food", "clothing", "tool", "transport", "musical", "household", "office", "sport", "game", "light",
     "book", "plant", "drink"}
)  # fmt: skip
# Colours and subjects are drawn once and for all: the set is the same on every machine.
_DRAW = 20_261_122


def build_twins(cache_dir: Path) -> Path:
    """The folder of the set, made where the cache lacks it (a minute; packages are downloaded once). Rows 2k and
    2k + 1 of its list are a couple.

    Raises
    ------
    DataSourceUnavailable
        A package cannot be downloaded.
    """
    target = cache_dir / "datasets" / NAME
    if (target / PAIRS_FILE).is_file():
        return target
    pictures = npm_package("@lobehub/fluent-emoji-3d", "1.1.0", cache_dir)
    words = npm_package("emojibase-data", "17.0.0", cache_dir)
    things = [one for one in read_emoji(pictures, words) if one.subgroup.split("-")[0] in _THINGS]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=target.parent))
    try:
        write_couples(things, unfinished, COUPLES)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def write_couples(things: list[Emoji], folder: Path, couples: int) -> None:
    """Paint so many couples, or as many as there are things, and write their list."""
    rng = np.random.default_rng(_DRAW)
    chosen = rng.permutation(len(things))[:couples]
    (folder / "images").mkdir()
    rows: list[dict[str, object]] = []
    for number, which in enumerate(chosen, start=1):
        thing = things[which]
        one, other = (list(COLOURS)[c] for c in rng.choice(len(COLOURS), 2, replace=False))
        for side, (paint, ground) in zip("ab", ((one, other), (other, one)), strict=True):
            image = f"images/{number:05d}{side}.webp"
            painted(thing.picture, COLOURS[paint], COLOURS[ground]).save(folder / image, quality=92, method=4)
            text = f"a {paint} {thing.label} on a {ground} ground"
            rows.append({"id": f"{number:05d}{side}", "image": image, "text": text, "label": thing.subgroup})
    write_pairs(folder, rows, sorted({str(row["label"]) for row in rows}))


def painted(picture: Path, paint: tuple[int, int, int], ground: tuple[int, int, int]) -> Image.Image:
    """The drawing in shades of one colour on a ground of another."""
    with Image.open(picture) as file:
        drawing = file.convert("RGBA")
    drawing.thumbnail((SIZE * 3 // 4, SIZE * 3 // 4), Image.Resampling.LANCZOS)
    shades = ImageOps.autocontrast(drawing.convert("RGB").convert("L"), cutoff=1)
    dark = (paint[0] // 5, paint[1] // 5, paint[2] // 5)
    light = tuple(value + (255 - value) * 3 // 5 for value in paint)
    coloured = ImageOps.colorize(shades, dark, (light[0], light[1], light[2]), mid=paint).convert("RGBA")
    coloured.putalpha(drawing.getchannel("A"))
    whole = Image.new("RGB", (SIZE, SIZE), ground)
    whole.paste(coloured, ((SIZE - drawing.width) // 2, (SIZE - drawing.height) // 2), coloured)
    return whole
