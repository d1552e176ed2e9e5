"""Building of benchmark sets, on small packages laid out like the real ones, and caching of their vectors."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import errors
from backend.simulation import datasets
from backend.simulation.datasets import build_dataset, dataset_names, embed_dataset, load_dataset
from backend.simulation.emoji import read_emoji
from backend.simulation.openclipart import PNG_FOLDER, SVG_FOLDER, read_drawings, spoken_title
from backend.simulation.packages import debian_packages, npm_package
from backend.simulation.pairs import text_key
from backend.simulation.stamps import read_stamps

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><metadata>
<rdf:RDF><cc:Work><dc:title>{title}</dc:title><dc:description>{description}</dc:description>
<dc:publisher><cc:Agent><dc:title>Open Clip Art Library</dc:title></cc:Agent></dc:publisher></cc:Work></rdf:RDF>
</metadata></svg>"""


def draw(root: Path, path: str, title: str, description: str = "", size: tuple[int, int] = (40, 30)) -> None:
    png, svg = root / PNG_FOLDER / path, (root / SVG_FOLDER / path).with_suffix(".svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    svg.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, (200, 10, 10, 255)).save(png)
    svg.write_text(SVG.format(title=title, description=description), encoding="utf-8")


@pytest.fixture
def clipart(tmp_path: Path) -> Path:
    root = tmp_path / "unpacked"
    draw(root, "animals/cat.png", "A cat", "on a mat")
    draw(root, "animals/birds/owl.png", "Owl")
    draw(root, "animals/empty.png", "")
    for number in range(3):
        draw(root, f"animals/series_{number}.png", "Series")
    draw(root, "food/large.png", "Large", size=(2001, 2000))
    draw(root, "food/orphan.png", "Orphan")
    (root / SVG_FOLDER / "food/orphan.svg").unlink()
    draw(root, "food/broken.png", "Broken")
    (root / SVG_FOLDER / "food/broken.svg").write_text("<svg><metadata>")
    (root / PNG_FOLDER / "food/link.png").symlink_to(root / PNG_FOLDER / "animals/cat.png")
    (root / SVG_FOLDER / "food/link.svg").symlink_to(root / SVG_FOLDER / "animals/cat.svg")
    return root


def test_drawings_without_a_title_of_their_own_links_and_giants_are_left_out(clipart: Path) -> None:
    drawings = read_drawings(clipart)
    assert [drawing.path for drawing in drawings] == ["animals/birds/owl.png", "animals/cat.png"]
    assert drawings[0].folders == ("animals", "birds")
    assert (drawings[1].title, drawings[1].description) == ("A cat", "on a mat")


def test_folder_without_the_packages_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.DataSourceUnavailable, match="openclipart"):
        read_drawings(tmp_path)
    with pytest.raises(errors.DataSourceUnavailable, match="stamps"):
        list(read_stamps(tmp_path))
    with pytest.raises(errors.DataSourceUnavailable, match="emojibase-data"):
        list(read_emoji(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("title", "spoken"),
    [
        ("Clipart by Nicu Buculei - bee", "bee"),
        ("Clipart by Pedro A. Gracia Fajardo - Spain - Canary", "Spain - Canary"),
        ("serbia_and_montenegro", "serbia and montenegro"),
        ("Switch HP 2", "Switch HP"),
        ("BlueMan#106", "BlueMan"),
        ("paper side II", "paper side"),
        ("Taxi", "Taxi"),
        ("45 rpm record", "45 rpm record"),
        ("Grampa&#39;n Gramma", "Grampa'n Gramma"),
        ("icon.svg", "icon"),
    ],
)
def test_titles_are_made_readable(title: str, spoken: str) -> None:
    assert spoken_title(title) == spoken


def test_same_text_means_same_words() -> None:
    assert text_key("Switch HP 2") == text_key("switch_hp (3)") == "switch hp"
    assert text_key("1989") != text_key("1990")


def test_emoji_are_matched_across_the_spelling_of_code_points(tmp_path: Path) -> None:
    pictures, words = tmp_path / "p", tmp_path / "w"
    (pictures / "assets").mkdir(parents=True)
    (words / "en").mkdir(parents=True)
    (words / "meta").mkdir()
    for name in ("2764-fe0f", "1f600"):
        Image.new("RGB", (4, 4)).save(pictures / "assets" / f"{name}.webp")
    entries = [
        {"hexcode": "2764", "label": "red heart", "subgroup": 1},
        {"hexcode": "1F600", "label": "grinning face", "subgroup": 0},
        {"hexcode": "1F601", "label": "no picture", "subgroup": 0},
        {"hexcode": "1F1E6", "label": "no subgroup"},
    ]
    (words / "en" / "data.json").write_text(json.dumps(entries))
    (words / "meta" / "groups.json").write_text(json.dumps({"subgroups": {"0": "face", "1": "heart"}}))
    found = [(emoji.label, emoji.subgroup) for emoji in read_emoji(pictures, words)]
    assert found == [("red heart", "heart"), ("grinning face", "face")]


def test_stamps_take_the_english_line_and_skip_alphabets(tmp_path: Path) -> None:
    root = tmp_path / "usr/share/tuxpaint/stamps"
    for path, caption in (
        ("animals/cat.png", "A cat.\nde.utf8=Eine Katze."),
        ("symbols/alphabets/a.png", "The letter A."),
        ("food/silent.png", None),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / path)
        if caption:
            (root / path).with_suffix(".txt").write_text(caption)
    assert [(stamp.caption, stamp.folder) for stamp in read_stamps(tmp_path)] == [("A cat.", "animals")]


def test_unknown_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownDataset, match="fluent57, openclipart16, tux12"):
        build_dataset("imagenet", tmp_path)
    assert dataset_names() == ["fluent57", "openclipart16", "tux12"]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """openclipart16 built from a package that is already in the cache: two full classes and one too small."""
    package = tmp_path / "debian" / "openclipart-png+openclipart-svg"
    for number, word in enumerate(["red", "old", "tall", "tiny", "blue", "fat", "wild", "calm", "odd", "new", "shy"]):
        draw(package, f"animals/{number}.png", f"{word} cats", size=(300 + number, 20))
        draw(package, f"food/{number}.png", f"{word} pies")
    draw(package, "people/one.png", "lonely man")
    draw(package, "unsorted/one.png", "whatever")
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))  # nothing may be downloaded
    return build_dataset("openclipart16", tmp_path)


def test_building_drops_small_classes_and_vague_folders_and_shrinks_pictures(built: Path) -> None:
    pairs = load_dataset(built)
    assert list(pairs.classes) == ["animals", "food"] and len(pairs) == 22 and pairs.holdout is None
    assert pairs.texts[0] == "red cats" and pairs.classes[pairs.labels[0]] == "animals"
    for path in pairs.images:
        with Image.open(path) as image:
            assert max(image.size) <= datasets.LONGEST_SIDE


def test_a_built_set_is_not_built_again(built: Path) -> None:
    before = (built / "pairs.jsonl").stat().st_mtime_ns
    assert build_dataset("openclipart16", built.parent.parent) == built
    assert (built / "pairs.jsonl").stat().st_mtime_ns == before
    assert [path.name for path in built.parent.iterdir()] == ["openclipart16"]


class CountingEncoder:
    """A tiny real encoder: mean colour and letter counts; counts its calls."""

    id = "counting-1"
    aligned = False

    def __init__(self) -> None:
        self.dims = {"image": 4, "text": 27}
        self.calls = 0

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        self.calls += 1
        rows = np.array([[*np.asarray(image.convert("RGB")).mean((0, 1)), 255.0] for image in images])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.calls += 1
        rows = np.array([[text.count(chr(97 + i)) for i in range(26)] + [1.0] for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_vectors_are_cached_by_encoder_and_content(built: Path, tmp_path: Path) -> None:
    pairs, encoder = load_dataset(built), CountingEncoder()
    first = embed_dataset(pairs, encoder, tmp_path / "cache")
    calls = encoder.calls
    again = embed_dataset(pairs, encoder, tmp_path / "cache")
    assert encoder.calls == calls
    assert {name: rows.shape for name, rows in again.items()} == {"image": (22, 4), "text": (22, 27)}
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_allclose(np.linalg.norm(first[name], axis=1), 1, atol=1e-6)

    encoder.id = "counting-2"
    embed_dataset(pairs, encoder, tmp_path / "cache")
    assert encoder.calls == 2 * calls
    Image.new("RGB", (5, 5), "blue").save(pairs.images[3], "WEBP")
    changed = embed_dataset(pairs, encoder, tmp_path / "cache")
    assert encoder.calls == 3 * calls and not np.array_equal(changed["image"][3], first["image"][3])


def test_packages_can_be_unpacked_into_a_cache_named_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: some-package\nVersion: 1\nArchitecture: all\nMaintainer: none\nDescription: none\n"
    )
    (package / "picture.png").write_bytes(b"picture")
    subprocess.run(["dpkg-deb", "--build", str(package), str(tmp_path / "some-package.deb")], check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apt-get").write_text(f'#!/bin/sh\ncp "{tmp_path}/some-package.deb" .\n')
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert (debian_packages(["some-package"], Path("cache")) / "picture.png").read_bytes() == b"picture"


def test_missing_programs_are_named_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(errors.DataSourceUnavailable, match="apt-get is not installed"):
        debian_packages(["some-package"], tmp_path / "cache")
    with pytest.raises(errors.DataSourceUnavailable, match="npm is not installed"):
        npm_package("some-package", "1.0.0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
