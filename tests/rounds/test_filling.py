"""Items come into a catalogue from files, or are refused by file, line and remedy with nothing added."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from backend.errors import CatalogueInvalid, ProjectUnsuited, ReplayInvalid
from backend.rounds.pairing.filling import add_items
from backend.rounds.project_labels import labels_of_project
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import catalogue, projects

TEMPLATES = Path(__file__).parents[2] / "tasks_templates"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A store with a pairing project 1 and a classification project 2."""
    found = Services(Settings(data_dir=tmp_path / "data", label_studio_api_key=SecretStr("none")))
    pairing = (TEMPLATES / "image_text_pairing" / "config.xml").read_text()
    classes = (TEMPLATES / "image_text_alignment" / "config.xml").read_text()
    projects.remember(found.store, 1, label_config=pairing, state="attached")
    projects.remember(found.store, 2, label_config=classes, state="attached")
    return found


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contents(services: Services, *ids: str) -> dict[str, str]:
    numbers = catalogue.numbers_of(services.store, 1, ids)
    return {item.item_id: item.content for item in catalogue.items(services.store, 1, numbers.values()).values()}


def test_a_folder_of_images_is_copied_within_limits_or_pointed_at(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a b.png")
    Image.fromarray(pixels[:50, :50]).save(folder / "sub" / "c.jpg")
    (folder / "notes.txt").write_text("no picture")
    assert add_items(services, 1, images=folder).changed == 2
    found = contents(services, "image:a b.png", "image:sub/c.jpg")
    assert all(content.startswith("data:image/webp;base64,") and len(content) < 81_000 for content in found.values())
    added = add_items(services, 1, images=folder, image_prefix="https://shop.example/media/")
    assert added.changed == 2
    assert contents(services, "image:a b.png") == {"image:a b.png": "https://shop.example/media/a%20b.png"}


def test_csv_json_and_plain_lines_give_texts_with_the_ids_they_name(services: Services, tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text('id,caption\n7,"a cat, asleep"\n8,a dog\n', encoding="utf-8-sig")
    add_items(services, 1, texts=csv)
    lines = tmp_path / "t.txt"
    lines.write_text("first\n\nthird\n")
    add_items(services, 1, texts=lines)
    listed = tmp_path / "t.json"
    listed.write_text(json.dumps([{"id": "x", "title": "a title"}]))
    add_items(services, 1, texts=listed)
    assert contents(services, "text:7", "text:8", "text:1", "text:3", "text:x") == {
        "text:7": "a cat, asleep",
        "text:8": "a dog",
        "text:1": "first",
        "text:3": "third",
        "text:x": "a title",
    }


def test_breaks_inside_a_text_are_part_of_it_and_end_no_line(services: Services, tmp_path: Path) -> None:
    unusual = "one\u2028two\x0bthree\x85four"
    lines = tmp_path / "t.jsonl"
    lines.write_text(json.dumps({"id": "a", "text": unusual}, ensure_ascii=False) + "\r\n", newline="")
    add_items(services, 1, texts=lines)
    csv = tmp_path / "t.csv"
    csv.write_text(f'id,text\r\nb,"one\ntwo"\r\nc,"one\r\ntwo"\r\nd,{unusual}\r\n', newline="")
    assert add_items(services, 1, texts=csv).given == 3
    plain = tmp_path / "t.txt"
    plain.write_text(f"{unusual}\r\nsecond\r\n", newline="")
    assert add_items(services, 1, texts=plain).given == 2
    assert contents(services, "text:a", "text:b", "text:c", "text:d", "text:1", "text:2") == {
        "text:a": unusual,
        "text:b": "one\ntwo",
        "text:c": "one\r\ntwo",
        "text:d": unusual,
        "text:1": unusual,
        "text:2": "second",
    }


def test_a_number_is_an_id_and_zero_is_one_too(services: Services, tmp_path: Path) -> None:
    add_items(
        services, 1, texts=write(tmp_path / "t.jsonl", [{"id": 0, "text": "first"}, {"id": 1, "text": "second"}])
    )
    assert contents(services, "text:0", "text:1") == {"text:0": "first", "text:1": "second"}


def test_adding_twice_changes_nothing_and_a_new_content_is_embedded_again(services: Services, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"id": "1", "text": "old"}])
    assert add_items(services, 1, texts=path).changed == 1
    [item] = catalogue.items(services.store, 1, [1]).values()
    catalogue.embedded(services.store, 1, "toy", {1: ("old", "hash", "")})
    assert add_items(services, 1, texts=path).changed == 0
    assert not catalogue.to_embed(services.store, 1, "toy", 5)
    assert add_items(services, 1, texts=write(path, [{"id": "1", "text": "new"}])).changed == 1
    assert [i.number for i in catalogue.to_embed(services.store, 1, "toy", 5)] == [item.number]


def test_what_arrives_by_the_stream_waits_in_the_buffer(services: Services, tmp_path: Path) -> None:
    add_items(services, 1, texts=write(tmp_path / "t.jsonl", [{"id": "1", "text": "new"}]), stream=True)
    assert catalogue.counts(services.store, 1, "toy")["text"] == {"buffer": 1}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"id": "1", "text": "a"}, {"id": "1", "text": "b"}], "stands twice"),
        ([{"id": "1", "text": "a"}, {"id": "2"}], "line 2: no text or caption or title"),
        ([{"id": "__none__", "text": "a"}], "cannot be used"),
        ([{"id": "x" * 200, "text": "a"}], "cannot be used"),
        ([["no", "object"]], "line 1: .* is no object"),
        ([], "no item found"),
    ],
)
def test_bad_items_are_refused_by_name_and_nothing_is_added(
    services: Services, tmp_path: Path, rows: list[object], words: str
) -> None:
    with pytest.raises(CatalogueInvalid, match=words):
        add_items(services, 1, texts=write(tmp_path / "t.jsonl", rows))
    assert catalogue.counts(services.store, 1, "toy") == {}


def test_files_that_cannot_be_read_are_named(services: Services, tmp_path: Path) -> None:
    broken = tmp_path / "t.jsonl"
    broken.write_text("{")
    number = tmp_path / "t.json"
    number.write_text("7")
    long = tmp_path / "t.csv"
    long.write_text(f"image\ndata:image/png;base64,{'A' * 200_000}\n")
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.png").write_bytes(io.BytesIO(b"no picture").getvalue())
    for given, words in (
        ({"texts": tmp_path / "missing.csv"}, "missing.csv cannot be read"),
        ({"texts": broken}, "not JSON"),
        ({"texts": number}, "t.json, line 1: '7' is no object"),
        ({"images": long}, "t.csv: not CSV .field larger than field limit.*JSON lines"),
        ({"texts": tmp_path / "t.xls"}, "unknown kind of file|cannot be read"),
        ({"images": folder}, "broken.png cannot be shown"),
    ):
        with pytest.raises(CatalogueInvalid, match=words):
            add_items(services, 1, **given)


def test_a_project_that_does_not_ask_for_pairs_has_no_catalogue(services: Services, tmp_path: Path) -> None:
    with pytest.raises(ProjectUnsuited, match="image_text_pairing"):
        add_items(services, 2, texts=write(tmp_path / "t.jsonl", [{"id": "1", "text": "a"}]))


def test_the_pairs_of_a_project_are_no_labels_to_replay(services: Services) -> None:
    with pytest.raises(ReplayInvalid, match="asks for pairs"):
        labels_of_project(services, 1)
