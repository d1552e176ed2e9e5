"""`mmal simulate`: of a set, of a project in the store, of an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import ExportInvalid, ProjectUnknown, ReplayInvalid
from backend.rounds.services import Services
from backend.settings import Settings, load_settings
from backend.simulation import labelled_set
from backend.store import projects, tasks
from tests.live.pool import CONFIG, LABELS, MULTI_CONFIG
from tests.simulation.synthetic import small_set

SHORT = ["--seeds", "2", "--jobs", "1", "--strategies", "margin", "--batch-size", "8", "--budget", "24"]


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("MMAL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MMAL_ENCODER", "import:tests.live.toy_encoder:make")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "")
    load_settings.cache_clear()
    yield Services(Settings())
    load_settings.cache_clear()


def simulate(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["simulate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fill(services: Services, project_id: int, labelled: int, config: str = CONFIG) -> None:
    """A synced and embedded project, as the worker leaves it."""
    data = small_set(120, 3)
    projects.remember(services.store, project_id, title="t", label_config=config)
    texts = [f"{LABELS[c]} thing {number}" for number, c in enumerate(data.labels)]
    pictures = [f"/data/{number}.png" for number in range(120)]
    ids = list(range(1, 121))
    inputs = [tasks.Inputs(i, image, text) for i, image, text in zip(ids, pictures, texts, strict=True)]
    tasks.remember(services.store, project_id, inputs)
    encoder, vectors = services.encoder, services.vectors()
    assert vectors is not None
    vectors.append("text", texts, encoder.encode_texts(texts))
    rows = np.random.default_rng(0).normal(size=(120, 48)).astype(np.float32)
    vectors.append("image", pictures, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    tasks.embedded(
        services.store,
        project_id,
        [
            {"task_id": i, "image": image, "text": text, "image_hash": image, "text_hash": text,
             "embedded_with": services.encoder_id}
            for i, image, text in zip(ids, pictures, texts, strict=True)
        ],
    )  # fmt: skip
    tasks.label(
        services.store,
        project_id,
        [tasks.Labelling(i, "label", [LABELS[c]]) for i, c in zip(ids[:labelled], data.labels, strict=False)],
    )


def test_a_set_is_replayed_into_json_table_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def named(name: str, cache: Path, encoder: str) -> Any:
        asked.append(name)
        return small_set(name=name)

    monkeypatch.setattr(labelled_set, "named_set", named)
    output = simulate(
        "-d", "tux12", "-d", "demo", "--scenario", "plain", "--scenario", "noisy", "--split", "grouped",
        "--out", tmp_path, *SHORT,
    )  # fmt: skip
    assert asked == ["tux12", "demo"]
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(c["dataset"], c["scenario"], c["split"]) for c in content["comparisons"]] == [
        ("tux12", "plain", "grouped"), ("tux12", "noisy", "grouped"),
        ("demo", "plain", "grouped"), ("demo", "noisy", "grouped"),
    ]  # fmt: skip
    assert all(
        c["n_labels"] == [8, 16, 24] and set(c["arms"]) == {"random", "margin"} for c in content["comparisons"]
    )
    assert "| `margin` |" in output and "| `margin` |" in (tmp_path / "report.md").read_text()
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert "served these labels" not in output  # advice is for one's own labels


def test_the_labels_of_a_project_are_replayed_without_label_studio(services: Services, tmp_path: Path) -> None:
    fill(services, 7, labelled=100)
    output = simulate("--project", "7", "--out", tmp_path / "out", *SHORT)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["sets"]["project-7"]["items"] == 100 and content["sets"]["project-7"]["classes"] == 3
    assert "not a uniform sample" in output and "Only 100 labelled items" in output
    assert "On project-7, plain, random split: 'margin' served" in output or "no strategy was clearly" in output


def test_a_project_whose_tasks_have_several_answers_is_replayed_by_average_precision(
    services: Services, tmp_path: Path
) -> None:
    fill(services, 3, labelled=100, config=MULTI_CONFIG)
    ticked = [tasks.Labelling(i, "label", [LABELS[0], LABELS[1]] if i % 2 else []) for i in range(1, 31)]
    tasks.label(services.store, 3, ticked)
    output = simulate("--project", "3", "--out", tmp_path / "out", *SHORT[:-6], "-s", "margin dropquery", *SHORT[-4:])
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    [one] = content["comparisons"]
    assert one["task"] == "multi_label" and set(one["arms"]) == {"random", "margin"}
    assert "dropquery is left out" in output and "micro F1" in output
    assert "mean average precision" in output or "no strategy was clearly" in output


def test_a_project_that_cannot_be_replayed_is_refused_with_the_reason(services: Services, tmp_path: Path) -> None:
    with pytest.raises(ProjectUnknown, match="attach"):
        simulate("--project", "9", "--out", tmp_path / "out")
    fill(services, 1, labelled=0)
    with pytest.raises(ReplayInvalid, match="no label"):
        simulate("--project", "1", "--out", tmp_path / "out")
    fill(services, 2, labelled=30)
    with pytest.raises(ReplayInvalid, match="at least 40"):
        simulate("--project", "2", "--out", tmp_path / "out")


def test_an_export_is_replayed(services: Services, tmp_path: Path) -> None:
    data = small_set(90, 3)
    content = [
        {"id": number, "data": {"title": f"{LABELS[c]} no {number}"}, "annotations": [
            {"id": number, "result": [{"type": "choices", "from_name": "tone", "to_name": "words",
                                       "value": {"choices": [LABELS[c]]}}]}]}
        for number, c in enumerate(data.labels)
    ]  # fmt: skip
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    output = simulate("--export", path, "--cache", tmp_path / "cache", "--out", tmp_path / "out", *SHORT)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["sets"]["mine"]["items"] == 90
    assert "On mine, plain, random split" in output
    with pytest.raises(ExportInvalid):
        simulate("--export", tmp_path / "out" / "results.json", "--out", tmp_path / "other")


def test_one_source_at_a_time(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--project", "1", "--dataset", "demo", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "one of them" in result.output
