"""The demo set that ships with the project, and the rules by which it was made."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import DatasetInvalid
from backend.simulation.demo_data import CLASSES, HOLDOUT, ITEMS, choose_holdout, class_of, is_telling
from backend.simulation.demo_exclusions import EXCLUDED
from backend.simulation.pairs import load_dataset, text_key

DEMO = Path(__file__).resolve().parents[2] / "tasks_templates" / "image_text_classification" / "demo"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in (DEMO / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def test_eight_hundred_pairs_with_every_field(rows: list[dict[str, object]]) -> None:
    assert len(rows) == ITEMS == 800
    assert all(set(row) == {"id", "image", "text", "label", "holdout"} for row in rows)
    assert len({row["id"] for row in rows}) == len({row["image"] for row in rows}) == ITEMS
    assert {path.name for path in (DEMO / "images").iterdir()} == {
        str(row["image"]).removeprefix("images/") for row in rows
    }


def test_pictures_are_small_webp_and_the_whole_set_fits_in_six_megabytes(rows: list[dict[str, object]]) -> None:
    for row in rows:
        with Image.open(DEMO / str(row["image"])) as image:
            assert image.format == "WEBP" and image.mode == "RGB" and max(image.size) <= 192 and min(image.size) >= 1
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 6_000_000


def test_no_picture_is_blank(rows: list[dict[str, object]]) -> None:
    for row in rows:
        with Image.open(DEMO / str(row["image"])) as image:
            assert np.asarray(image).std() > 2, row["id"]


def test_at_least_ten_classes_with_enough_items_each(rows: list[dict[str, object]]) -> None:
    counts = Counter(row["label"] for row in rows)
    assert list(CLASSES) == (DEMO / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert set(counts) == set(CLASSES) and len(counts) >= 10
    assert min(counts.values()) >= 25 and max(counts.values()) <= 100


def test_titles_do_not_name_their_class_and_repeat_at_most_twice(rows: list[dict[str, object]]) -> None:
    for row in rows:
        assert is_telling(str(row["text"]), str(row["label"])), row
        assert not re.search(r"_|clip ?art by|\.svg$|&\w+;", str(row["text"]), re.IGNORECASE), row
    assert max(Counter(text_key(str(row["text"])) for row in rows).values()) <= 2


def test_last_two_hundred_are_held_out_in_the_proportions_of_the_classes(rows: list[dict[str, object]]) -> None:
    assert [row["holdout"] for row in rows] == [False] * (ITEMS - HOLDOUT) + [True] * HOLDOUT
    whole, held = Counter(row["label"] for row in rows), Counter(row["label"] for row in rows if row["holdout"])
    for label, count in whole.items():
        assert abs(held[label] - count * HOLDOUT / ITEMS) < 1


def test_no_text_is_on_both_sides(rows: list[dict[str, object]]) -> None:
    sides = [{text_key(str(row["text"])) for row in rows if row["holdout"] is side} for side in (False, True)]
    assert not sides[0] & sides[1]


def test_every_item_has_its_provenance_and_its_class_follows_from_it(rows: list[dict[str, object]]) -> None:
    text = (DEMO / "PROVENANCE.md").read_text(encoding="utf-8")
    assert "public domain" in text and "openclipart-png" in text
    table = re.findall(r"^\| (\d{4}) \| (\S+\.png) \| (.+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert [entry[0] for entry in table] == [row["id"] for row in rows]
    assert len({entry[1] for entry in table}) == ITEMS
    for (_, path, _, label), row in zip(table, rows, strict=True):
        assert label == row["label"] == class_of(path.split("/")[:-1])
        assert not path.startswith(EXCLUDED)


def test_loader_reads_the_set_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    pairs = load_dataset(DEMO)
    assert len(pairs) == ITEMS and pairs.holdout is not None and int(pairs.holdout.sum()) == HOLDOUT
    assert np.bincount(pairs.labels, minlength=len(CLASSES)).min() > 0
    (tmp_path / "labels.txt").write_text("Animal\n")
    with pytest.raises(DatasetInvalid, match=r"pairs\.jsonl"):
        load_dataset(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"id": "1", "image": "x.webp", "text": "t", "label": "Animal"}\n')
    with pytest.raises(DatasetInvalid, match="item 1"):
        load_dataset(tmp_path)


def test_holdout_that_cannot_be_filled_is_an_error() -> None:
    with pytest.raises(DatasetInvalid, match="holdout"):
        choose_holdout([])


@pytest.mark.parametrize(
    ("text", "label", "telling"),
    [
        ("Kuwait", "Flag", True),
        ("British Flag", "Flag", False),
        ("animals", "Animal", False),
        ("Moschito stecchito", "Animal", True),
        ("M", "Tool", False),
        ("Architetto Francesco Rollandin", "Person", False),
        ("L&Atilde;zard", "Animal", False),
    ],
)
def test_which_titles_are_telling(text: str, label: str, telling: bool) -> None:
    assert is_telling(text, label) is telling


def test_subfolders_of_another_kind_are_not_in_the_class() -> None:
    assert class_of(("animals", "birds")) == "Animal"
    assert class_of(("people", "clothing", "hats")) == "Clothing"
    assert class_of(("people",)) == "Person"
    for folders in (("animals", "fantasy"), ("signs_and_symbols",), ("people", "smilies"), ("foodstuff",), ()):
        assert class_of(folders) is None
