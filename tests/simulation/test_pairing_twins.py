"""Couples of near-twins: the same words, two colours swapped, in the caption and in the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.simulation.emoji import Emoji
from backend.simulation.pairing import twins
from backend.simulation.pairing.twins import COLOURS, SIZE, painted, write_couples
from backend.simulation.pairs import load_dataset


@pytest.fixture
def things(tmp_path: Path) -> list[Emoji]:
    found = []
    for number, label in enumerate(("dog", "red apple", "kite")):
        picture = np.zeros((64, 64, 4), dtype=np.uint8)
        picture[16:48, 16:48] = (40 + 60 * number, 90, 200, 255)
        picture[24:40, 24:40, :3] = 250
        path = tmp_path / f"{label}.png"
        Image.fromarray(picture).save(path)
        found.append(Emoji(path, label, "animal-mammal"))
    return found


def test_a_couple_has_the_same_words_with_two_colours_swapped(things: list[Emoji], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_couples(things, folder, 2)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and len(load_dataset(folder)) == 4
    for one, other in zip(rows[0::2], rows[1::2], strict=True):
        assert one["id"][:-1] == other["id"][:-1]
        assert sorted(one["text"].split()) == sorted(other["text"].split()) and one["text"] != other["text"]
        thing = one["text"].removesuffix(" ground").split(" on a ")[0].split(" ", 2)[2]
        assert thing in {t.label for t in things}
        for row, twin in ((one, other), (other, one)):
            ground = row["text"].split()[-2]
            assert twin["text"].split()[1] == ground
            with Image.open(folder / row["image"]) as image:
                corner = np.array(image.convert("RGB"))[2, 2]
            assert np.abs(corner.astype(int) - COLOURS[ground]).max() < 25


def test_a_drawing_is_painted_in_shades_of_its_colour(things: list[Emoji]) -> None:
    image = np.array(painted(things[0].picture, COLOURS["red"], COLOURS["blue"])).astype(int)
    assert image.shape == (SIZE, SIZE, 3)
    assert tuple(image[0, 0]) == COLOURS["blue"]
    drawn = image[(image != COLOURS["blue"]).any(axis=2)]
    assert (drawn[:, 0] >= drawn[:, 2]).mean() > 0.9 and len(np.unique(drawn, axis=0)) > 1


def test_the_set_is_the_same_each_time_it_is_made(
    things: list[Emoji], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "npm_package", lambda name, version, cache: tmp_path)
    monkeypatch.setattr(twins, "read_emoji", lambda pictures, words: iter(things))
    texts = []
    for name in ("one", "two"):
        folder = twins.build_twins(tmp_path / name)
        assert twins.build_twins(tmp_path / name) == folder
        texts.append([(text, image.read_bytes()) for text, image in zip(*_parts(folder), strict=True)])
    assert texts[0] == texts[1] and len(texts[0]) == 6


def _parts(folder: Path) -> tuple[list[str], list[Path]]:
    pairs = load_dataset(folder)
    return list(pairs.texts), list(pairs.images)
