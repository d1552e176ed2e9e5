"""A Label Studio export becomes a labelled set, or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import ExportInvalid, MediaNotFound
from backend.simulation.export import export_set, read_export
from tests.live.pool import CONFIG, MULTI_CONFIG, make_tasks
from tests.live.toy_encoder import ToyEncoder

ENCODER = "import:tests.live.toy_encoder:make"


def annotation(number: int, choices: list[str], control: str = "tone", **more: Any) -> dict[str, Any]:
    region = {"type": "choices", "from_name": control, "to_name": "picture", "value": {"choices": choices}}
    return {"id": number, "completed_by": {"id": number}, "result": [region], **more}


def exported(count: int = 80) -> list[dict[str, Any]]:
    """Tasks of which every eighth is not labelled, one a tie and one skipped."""
    tasks = []
    for number, data in enumerate(make_tasks(count)):
        truth = data.pop("truth")
        given = [annotation(number, [truth])] if number % 8 else []
        tasks.append({"id": 100 + number, "data": {**data, "al_reason": "why"}, "annotations": given})
    tasks[1]["annotations"] = [annotation(1, ["warm"]), annotation(2, ["cold"])]
    tasks[2]["annotations"] = [annotation(3, ["warm"], was_cancelled=True)]
    return tasks


def write(path: Path, content: Any) -> Path:
    file = path / "export.json"
    file.write_text(json.dumps(content))
    return file


class Uris:
    """Reads data: addresses; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def fetch(self, uri: str, task_id: int | None = None) -> bytes:
        import base64

        self.asked += 1
        if not uri.startswith("data:"):
            raise MediaNotFound(f"{uri}: not there")
        return base64.b64decode(uri.partition(",")[2])


@pytest.mark.parametrize("config", [CONFIG, None])
def test_labelled_tasks_are_read_with_and_without_a_label_config(tmp_path: Path, config: str | None) -> None:
    schema, tasks = read_export(write(tmp_path, exported()), config)
    assert (schema.image_key, schema.text_key, schema.from_name) == ("photo", "title", "tone")
    assert set(schema.choices) == {"warm", "cold", "grey"}
    assert len(tasks) == 70 - 2  # ten without an answer, a tie, a skip
    truths = {100 + number: data["truth"] for number, data in enumerate(make_tasks(80))}
    assert all(task.labels == (truths[task.task_id],) for task in tasks)
    assert all(task.image.startswith("data:") and "no" in task.text for task in tasks)


def test_an_export_is_embedded_once_and_grouped_by_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fetcher = write(tmp_path, exported()), Uris()
    data = export_set(path, CONFIG, fetcher, ENCODER, tmp_path / "cache", ["told"])
    assert len(data) == 68 and data.name == "export" and data.notes[0] == "told"
    assert {m: rows.shape for m, rows in data.features.items()} == {"image": (68, 48), "text": (68, 64)}
    # Titles end in a number of their own: all differ, and without digits most do not.
    assert len(set(data.groups["random"])) == 68 > len(set(data.groups["grouped"]))
    asked = fetcher.asked
    monkeypatch.setattr(ToyEncoder, "encode_texts", lambda *_: pytest.fail("encoded again"))
    again = export_set(path, CONFIG, fetcher, ENCODER, tmp_path / "cache", ["told"])
    assert fetcher.asked == asked and again.fingerprint == data.fingerprint


def test_pictures_that_cannot_be_read_count_as_absent_and_are_told(tmp_path: Path) -> None:
    tasks = exported()
    tasks[3]["data"]["photo"] = "/data/upload/gone.png"
    data = export_set(write(tmp_path, tasks), CONFIG, Uris(), ENCODER, tmp_path / "cache")
    assert (~data.features["image"].any(axis=1)).sum() == 1
    assert np.linalg.norm(data.features["image"], axis=1).max() == pytest.approx(1, abs=1e-5)
    assert any("1 pictures of 68 could not be read" in note for note in data.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": 1}, "export the project as JSON"),
        ([{"id": 1}], "export the project as JSON"),
        ([{"id": 1, "data": {"title": "x y"}, "annotations": []}], "0 controls"),
        (
            [{"id": 1, "data": {"a": "x y", "b": "z w"}, "annotations": [annotation(1, ["p"])]}],
            "all look like text",
        ),
        (
            [{"id": 1, "data": {"a": "x y"}, "annotations": [annotation(1, ["p"]), annotation(2, ["q"], "other")]}],
            "2 controls",
        ),
        ([{"id": 1, "data": {}, "annotations": [annotation(1, ["p"])]}], "no field"),
        (
            [{"id": 1, "data": {"a": "x y"}, "annotations": [annotation(1, ["p"], was_cancelled=True)]}],
            "none of its 1",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ExportInvalid, match=words):
        read_export(write(tmp_path, content))


def several(count: int = 80) -> list[dict[str, Any]]:
    """Each task has the labels that its number tells: warm, cold, both or neither, neither being an answer too."""
    tasks = []
    for number, data in enumerate(make_tasks(count)):
        del data["truth"]
        ticked = [name for name, every in (("warm", 2), ("cold", 3)) if number % every == 0]
        empty = {"id": number, "completed_by": {"id": number}, "result": []}
        tasks.append({"id": number, "data": data, "annotations": [annotation(number, ticked) if ticked else empty]})
    return tasks


def test_tasks_with_several_answers_become_one_column_a_label(tmp_path: Path) -> None:
    data = export_set(write(tmp_path, several()), MULTI_CONFIG, Uris(), ENCODER, tmp_path / "cache")
    # Nobody ticked grey, so there is nothing to learn of it.
    assert data.multi_label and data.classes == ["warm", "cold"]
    numbers = np.arange(80)
    np.testing.assert_array_equal(data.labels, np.stack([numbers % 2 == 0, numbers % 3 == 0], axis=1))
    held_out = data.split("random", 0)
    assert 15 <= held_out.sum() <= 25 and data.labels[held_out].any(axis=0).all()
