"""Items come into a catalogue from files, or are refused by file, line and remedy with nothing added."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from backend.errors import CatalogueInvalid, CatalogueItemInUse, ProjectUnsuited, ReplayInvalid
from backend.labelstudio.records import TaskSnapshot
from backend.rounds.pairing.filling import absorb_tasks, add_items
from backend.rounds.project_labels import labels_of_project
from backend.rounds.services import Services, schema_of
from backend.settings import Settings
from backend.store import catalogue, pair_queries, projects
from backend.store.catalogue import NewItem

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


def in_order(services: Services) -> list[tuple[str, str]]:
    """(id, content) of all items in the order they came."""
    return [(item.item_id, item.content) for item in catalogue.items(services.store, 1, range(1, 100)).values()]


def answer(services: Services, item: str, shown: str, **fields: Any) -> None:
    """A question about an item that was answered with the one it shows, unless told otherwise."""
    number = catalogue.numbers_of(services.store, 1, [item, shown])
    given = {"key": f"1/query/{item}", "round_number": 1, "modality": item.partition(":")[0], "item": number[item]}
    given |= {"candidates": [number[shown]], "task_id": 7, "answer": "pick", "partner": number[shown]}
    pair_queries.choose(services.store, 1, [{**given, **fields}])


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
    ids, found = zip(*in_order(services), strict=True)
    assert found == ("a cat, asleep", "a dog", "first", "third", "a title")
    assert (ids[:2], ids[4]) == (("text:7", "text:8"), "text:x")


def test_breaks_inside_a_text_are_part_of_it_and_end_no_line(services: Services, tmp_path: Path) -> None:
    unusual = "one\u2028two\x0bthree\x85four"
    lines = tmp_path / "t.jsonl"
    lines.write_text(json.dumps({"id": "a", "text": unusual}, ensure_ascii=False) + "\r\n", newline="")
    add_items(services, 1, texts=lines)
    csv = tmp_path / "t.csv"
    csv.write_text(f'id,text\r\nb,"one\ntwo"\r\nc,"one\r\ntwo"\r\nd,{unusual}\r\n', newline="")
    assert add_items(services, 1, texts=csv).given == 3
    plain = tmp_path / "t.txt"
    plain.write_text(f"first, {unusual}\r\nsecond\r\n", newline="")
    assert add_items(services, 1, texts=plain).given == 2
    found = [content for _, content in in_order(services)]
    assert found == [unusual, "one\ntwo", "one\r\ntwo", unusual, f"first, {unusual}", "second"]


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


def test_a_text_without_an_id_is_told_by_its_content_whatever_its_line_and_its_file(
    services: Services, tmp_path: Path
) -> None:
    lines = tmp_path / "mon.txt"
    lines.write_text("a red boat\na green tree\na red boat\n")
    assert add_items(services, 1, texts=lines).changed == 3
    monday = in_order(services)
    assert len({item_id for item_id, _ in monday}) == 3
    answer(services, monday[0][0], monday[1][0])
    lines.write_text("a yellow cab\na red boat\na green tree\na red boat\n")
    assert add_items(services, 1, texts=lines).changed == 1
    tuesday = write(tmp_path / "tue.jsonl", [{"text": "a blue door"}, {"text": "a green tree"}, {"text": "a lamp"}])
    assert add_items(services, 1, texts=tuesday).changed == 2
    assert add_items(services, 1, texts=tuesday).changed == 0
    found = in_order(services)
    assert found[:3] == monday
    assert [content for _, content in found[3:]] == ["a yellow cab", "a blue door", "a lamp"]


def test_a_file_whose_lines_were_its_ids_once_is_recognised(services: Services, tmp_path: Path) -> None:
    contents_before = ["a red boat", "a green tree", "a red boat"]
    catalogue.add(services.store, 1, [NewItem(f"text:{n}", "text", c) for n, c in enumerate(contents_before, 1)])
    before = in_order(services)
    lines = tmp_path / "t.txt"
    lines.write_text("\n".join(["a line at the top", *contents_before]) + "\n")
    assert add_items(services, 1, texts=lines).changed == 1
    assert in_order(services)[:3] == before


def test_an_item_that_an_answer_speaks_of_becomes_another_only_when_told_so(
    services: Services, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.jsonl", [{"id": n, "text": f"text {n}"} for n in range(6)])
    add_items(services, 1, images=write(tmp_path / "i.jsonl", [{"id": "a", "image": "http://h/a.png"}]), texts=path)
    answer(services, "image:a", "text:0")
    answer(services, "text:1", "image:a", answer="none", partner=0)
    answer(services, "text:2", "image:a", answer="withdrawn", partner=0)
    answer(services, "text:3", "image:a", answer="open", partner=0, task_id=0)
    answer(services, "text:5", "text:4", answer="open", partner=0)
    for number in range(6):
        changed = write(
            tmp_path / "changed.jsonl", [{"id": f"new {number}", "text": "n"}, {"id": number, "text": "x"}]
        )
        if number not in (2, 3):
            words = (
                f"changed.jsonl, line 2: id = '{number}' of text .* 'text {number}' .* 'x'. .* another id.*--replace"
            )
            with pytest.raises(CatalogueItemInUse, match=words):
                add_items(services, 1, texts=changed)
            assert contents(services, f"text:{number}", f"text:new {number}") == {f"text:{number}": f"text {number}"}
        assert add_items(services, 1, texts=changed, replace=number not in (2, 3)).changed == 2
        assert contents(services, f"text:{number}") == {f"text:{number}": "x"}


def test_an_imported_task_whose_id_stands_for_something_else_in_an_answer_is_an_item_of_its_own(
    services: Services,
) -> None:
    deleted: list[int] = []
    services.label_studio = SimpleNamespace(delete_tasks=lambda _project, ids: deleted.extend(ids))  # type: ignore[assignment]
    schema = schema_of(projects.get(services.store, 1))

    def absorb(*tasks: tuple[int, object, str]) -> int:
        data = [(n, {"id": name, "image": "", "text": text, "candidates": []}) for n, name, text in tasks]
        snapshots = [TaskSnapshot(n, fields, datetime.now(UTC)) for n, fields in data]
        return absorb_tasks(services, 1, schema, snapshots, stream=False)

    long = "Fonds 12/" * 20
    assert absorb((1, 17, "a"), (2, "b", "b"), (3, long + "1", "c"), (4, long + "2", "d"), (5, "", "e")) == 5
    ids = [item_id for item_id, _ in in_order(services)]
    assert (ids[:2], ids[4]) == (["text:17", "text:b"], "text:task-5")
    assert len(set(ids)) == 5 and max(map(len, ids)) <= 128
    answer(services, "text:17", "text:b")
    for _ in range(2):
        absorb((6, "17", "another"), (7, "b", "b"))
    assert contents(services, "text:17", "text:b", "text:task-6") == {
        "text:17": "a",
        "text:b": "b",
        "text:task-6": "another",
    }
    assert deleted == [1, 2, 3, 4, 5, 6, 7, 6, 7]


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
