"""Which questions become tasks, and what becomes of those that nobody needs answered, without Label Studio."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from backend.errors import CandidatesUnreadable, MediaNotFound, MediaUnreachable
from backend.labelstudio.schema import TaskSchema
from backend.rounds.creating import TEMPLATES
from backend.rounds.embedding import embed_chunk
from backend.rounds.pairing.asking import ask, withdraw
from backend.rounds.pairing.settling import settle
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import catalogue, pair_queries, projects, tasks
from backend.store.catalogue import NewItem
from backend.store.tables import PairQueryRow


class BusyAnnotators:
    """Stands for a Label Studio in which somebody worked on some tasks since the round read the answers."""

    def __init__(self, touched: set[int]) -> None:
        self.touched = touched

    def delete_untouched_tasks(self, _project_id: int, task_ids: Iterable[int]) -> set[int]:
        return set(task_ids) - self.touched


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A store in which project 1 has three open questions, two of which have tasks."""
    found = Services(Settings(data_dir=tmp_path / "data", label_studio_api_key=SecretStr("none")))
    projects.remember(found.store, 1, state="attached")
    questions = [
        {"key": key, "task_id": task_id, "round_number": 1, "modality": "image", "item": n, "candidates": [9]}
        for n, (key, task_id) in enumerate([("a", 10), ("b", 11), ("c", 0)])
    ]
    pair_queries.choose(found.store, 1, questions)
    tasks.remember(found.store, 1, [tasks.Inputs(10, "", ""), tasks.Inputs(11, "", "")])
    return found


def asked(services: Services) -> list[PairQueryRow]:
    return pair_queries.every(services.store, 1)


def test_a_question_that_somebody_just_answered_is_not_withdrawn_and_its_task_stays_known(services: Services) -> None:
    services.label_studio = BusyAnnotators({11})  # type: ignore[assignment]
    withdraw(services, 1, asked(services))
    assert {q.key: (q.answer, q.task_id) for q in asked(services)} == {
        "a": ("withdrawn", 10),
        "b": ("open", 11),
        "c": ("withdrawn", 0),
    }
    assert tasks.live_ids(services.store, 1) == {11}


SCHEMA = TaskSchema.from_label_config((TEMPLATES / "image_text_pairing" / "config.xml").read_text())


class ImportedTasks:
    """Stands for a Label Studio in which tasks are only ever imported."""

    def __init__(self) -> None:
        self.data: dict[int, dict[str, Any]] = {}

    def task_ids(self, _project_id: int) -> set[int]:
        return set(self.data)

    def tasks_by_id(self, _project_id: int, _task_ids: set[int]) -> dict[int, Any]:
        return {}

    def import_tasks(self, _project_id: int, rows: Sequence[dict[str, Any]]) -> list[int]:
        ids = list(range(len(self.data) + 1, len(self.data) + len(rows) + 1))
        self.data |= dict(zip(ids, rows, strict=True))
        return ids


class ImageHost:
    """Stands for a host of images, some of which are gone, or which does not answer at all."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.gone: set[str] = set()

    def fetch(self, uri: str, _task_id: int | None = None) -> bytes:
        if uri in self.silent:
            raise MediaUnreachable(f"{uri}: no connection.")
        if uri in self.gone:
            raise MediaNotFound(f"{uri}: no such file.")
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        return picture.getvalue()


class Asked:
    """Four images and four texts in project 1; questions are about texts, or about the first image."""

    def __init__(self, folder: Path) -> None:
        self.services = Services(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make"))
        self.store, self.host = self.services.store, ImageHost()
        self.services.label_studio = self.label_studio = ImportedTasks()  # type: ignore[assignment]
        self.services.media = self.host  # type: ignore[assignment]
        projects.remember(self.store, 1, state="attached")
        items = [NewItem(f"image:{n}", "image", f"http://host-{n}/image.png") for n in range(4)]
        catalogue.add(self.store, 1, items + [NewItem(f"text:{n}", "text", f"words {n}") for n in range(4)])
        self.images, self.texts = [1, 2, 3, 4], [5, 6, 7, 8]
        assert embed_chunk(self.services, 1) == 8

    def note(self, item: int, candidates: Sequence[int], **fields: Any) -> None:
        modality, purpose = "image" if item in self.images else "text", fields.get("purpose", "query")
        name = f"{modality}:{item - (1 if item in self.images else 5)}"
        question = {"key": f"1/{purpose}/{modality}/{name}", "round_number": 1, "modality": modality, "item": item}
        shown = {"candidates": list(candidates), "similarities": [0.5] * len(candidates), "why": "control"}
        pair_queries.choose(self.store, 1, [{**question, **shown, **fields}])

    def ask(self) -> int:
        return ask(self.services, SCHEMA, 1, "v1", lambda _point: None)

    def fail(self, kind: str, *images: int) -> None:
        setattr(self.host, kind, {f"http://host-{n - 1}/image.png" for n in images})

    def answers(self) -> dict[int, str]:
        return {q.item: q.answer for q in pair_queries.every(self.store, 1)}

    def offered(self) -> set[int]:
        """Images that may be offered: those whose vector is known."""
        rows = catalogue.vector_rows(self.store, 1, self.services.encoder_id)
        return {row.number for row in rows if row.modality == "image" and row.row >= 0}


@pytest.fixture
def world(tmp_path: Path) -> Asked:
    return Asked(tmp_path / "data")


def test_while_the_host_of_images_is_down_nothing_is_asked_and_afterwards_all_of_it(world: Asked) -> None:
    for text in world.texts:
        world.note(text, world.images)
    world.note(world.images[0], world.texts)
    world.fail("silent", 1, 2, 3)
    with pytest.raises(CandidatesUnreadable, match=r"3 of 4 images .* image:0: .*no connection.*MMAL_MEDIA_ALLOW"):
        world.ask()
    assert (set(world.answers().values()), world.label_studio.data) == ({"open"}, {})
    world.fail("silent")
    assert world.ask() == 5
    assert all(len(q.candidates) == 4 for q in pair_queries.every(world.store, 1))


def test_a_question_whose_host_alone_is_down_waits_while_others_are_asked(world: Asked) -> None:
    world.note(5, [1, 2, 3])
    world.note(6, [4])
    world.fail("silent", 4)
    assert world.ask() == 1
    assert world.answers() == {5: "open", 6: "open"}
    with pytest.raises(CandidatesUnreadable, match="1 of 1 images"):
        world.ask()
    world.fail("silent")
    assert world.ask() == 1


def test_an_image_that_is_gone_is_listed_and_offered_no_more_until_it_is_back(world: Asked) -> None:
    world.note(5, [1, 2])
    world.note(6, [1, 2, 3, 4])
    world.fail("gone", 1, 2)
    assert world.ask() == 1
    # Nothing of the first could be shown: another question about the same item may be asked.
    assert world.answers() == {5: "withdrawn", 6: "open"}
    assert [name for name, _ in catalogue.problems(world.store, 1)] == ["image:0", "image:1"]
    assert world.offered() == {3, 4}
    assert catalogue.retry_problems(world.store, 1) == 2
    embed_chunk(world.services, 1)
    assert (world.offered(), projects.get(world.store, 1).round_requested) == ({3, 4}, "")
    world.fail("gone")
    catalogue.retry_problems(world.store, 1)
    embed_chunk(world.services, 1)
    assert world.offered() == {1, 2, 3, 4}
    assert "2 items" in projects.get(world.store, 1).round_requested


def test_where_no_candidate_at_all_can_be_had_the_round_says_so(world: Asked) -> None:
    world.note(5, [1, 2])
    world.fail("gone", 1, 2)
    with pytest.raises(CandidatesUnreadable, match=r"image:0: .*no such file"):
        world.ask()
    assert world.ask() == 0


def test_only_what_the_task_shows_is_refused_by_none_of_these(world: Asked) -> None:
    world.note(5, [3, 1, 2, 4], similarities=[0.4, 0.3, 0.2, 0.1])
    world.fail("silent", 1)
    assert world.ask() == 1
    [question] = pair_queries.every(world.store, 1)
    assert world.label_studio.data[1]["candidate_ids"] == ["image:2", "image:1", "image:3"]
    assert (question.candidates, question.similarities) == ([3, 2, 4], [0.4, 0.2, 0.1])
    nobody = {"partner": 0, "further_partners": [], "answered_at": ""}
    pair_queries.answered(world.store, 1, [{"key": question.key, "task_id": 1, "answer": "none", **nobody}])
    assert settle(pair_queries.every(world.store, 1), {}, 2).refused == {5: {2, 3, 4}}


def test_a_contradiction_is_not_asked_about_one_side_alone(world: Asked) -> None:
    world.note(5, [1, 2], purpose="conflict")
    world.note(6, [3, 4])
    world.fail("gone", 2)
    assert world.ask() == 1
    assert world.answers() == {5: "unreadable", 6: "open"}


def test_what_could_not_be_shown_is_asked_about_again_after_a_retry_or_with_a_new_content(world: Asked) -> None:
    for text in (5, 6):
        world.note(text, world.images, answer="unreadable")
    world.note(7, world.images, answer="unreadable", task_id=70)
    catalogue.add(world.store, 1, [NewItem("text:0", "text", "shorter words")])
    assert world.answers() == {5: "withdrawn", 6: "unreadable", 7: "unreadable"}
    catalogue.retry_problems(world.store, 1)
    # What annotators wrote and nobody can read is for them to mend.
    assert world.answers() == {5: "withdrawn", 6: "withdrawn", 7: "unreadable"}
