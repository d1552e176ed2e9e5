"""What annotations of questions come to in the store, without Label Studio."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.labelstudio.pair_tasks import NONE, UNSURE, PairItem, query_task
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.rounds.creating import TEMPLATES
from backend.rounds.pairing.reading import read_answers, remember_tasks
from backend.rounds.pairing.settling import settle
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import catalogue, pair_queries, projects, tasks
from backend.store.catalogue import NewItem
from tests.pair_form import answer_regions

CONFIG = (TEMPLATES / "image_text_pairing" / "config.xml").read_text()
SCHEMA = TaskSchema.from_label_config(CONFIG)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A store in which project 1 has the images 1 and 2, the text 3, and a question about each image."""
    found = Services(Settings(data_dir=tmp_path / "data", label_studio_api_key=SecretStr("none")))
    projects.remember(found.store, 1, label_config=CONFIG, state="attached")
    items = [
        NewItem("image:a", "image", "a.png"),
        NewItem("image:b", "image", "b.png"),
        NewItem("text:t", "text", "t"),
    ]
    catalogue.add(found.store, 1, items)
    pair_queries.choose(
        found.store,
        1,
        [
            {"key": task(n).data["query_key"], "round_number": 1, "modality": "image", "item": n, "candidates": [3]}
            for n in (1, 2)
        ],
    )
    return found


def task(number: int, *answers: tuple[str, str]) -> TaskSnapshot:
    """The task of the question about an image, with (created at, choice) of each annotation."""
    annotations: list[dict[str, Any]] = [
        {"id": 10 * number + n, "created_at": at, "completed_by": n, "result": answer_regions(SCHEMA, choice)}
        for n, (at, choice) in enumerate(answers)
    ]
    data = query_task(
        SCHEMA,
        modality="image",
        query=PairItem(f"image:{'ab'[number - 1]}", "x.png"),
        candidates=[PairItem("text:t", "t")],
        similarities=[0.5],
        model_version="v",
        round_number=1,
    )
    return TaskSnapshot(number, data, datetime.now(UTC), tuple(annotations))


@pytest.mark.parametrize(
    ("of_a", "of_b", "first"),
    [
        (["10:00:00.500000Z"], ["10:00:00Z"], 2),
        (["10:00:00.000001Z"], ["10:00:00.500000Z"], 1),
        (["10:00:00Z"], ["11:30:00+02:00"], 2),
        (["10:00:01Z", "10:00:00.250000Z", "10:00:00Z"], ["10:00:00.100000Z"], 1),
    ],
)
def test_who_answered_first_keeps_the_partner_however_the_time_is_spelled(
    services: Services, of_a: list[str], of_b: list[str], first: int
) -> None:
    snapshots = [task(n, *((f"2026-01-01T{at}", "text:t") for at in times)) for n, times in ((1, of_a), (2, of_b))]
    remember_tasks(services, 1, SCHEMA, snapshots)
    assert read_answers(services, 1, SCHEMA, snapshots) == 2
    asked = pair_queries.every(services.store, 1)
    assert list(settle(asked, {}, 2).pairs) == [(first, 3)]


def test_an_answer_that_says_nothing_of_the_partner_pairs_nothing(services: Services) -> None:
    snapshots = [task(1, ("2026-01-01T10:00:00Z", UNSURE)), task(2)]
    remember_tasks(services, 1, SCHEMA, snapshots)
    read_answers(services, 1, SCHEMA, snapshots)
    asked = pair_queries.every(services.store, 1)
    assert [q.answer for q in asked] == ["unsure", "open"]
    assert not settle(asked, {}, 2).pairs


def test_a_skipped_question_that_is_put_back_is_open_until_it_is_skipped_once_more(services: Services) -> None:
    def read(*skips: int) -> list[str]:
        by = [{"id": n, "completed_by": n, "was_cancelled": True, "result": []} for n in skips]
        skipped = replace(task(1), annotations=tuple({**each, "created_at": "2026-01-01T10:00:00Z"} for each in by))
        remember_tasks(services, 1, SCHEMA, [skipped, task(2)])
        read_answers(services, 1, SCHEMA, [skipped, task(2)])
        return [q.answer for q in pair_queries.every(services.store, 1)]

    assert read(7) == ["skipped", "open"]
    assert tasks.restore_skipped(services.store, 1, [2]) == 0
    assert read(7) == ["skipped", "open"]
    assert tasks.restore_skipped(services.store, 1) == 1
    assert [q.answer for q in pair_queries.every(services.store, 1)] == ["open", "open"]
    assert read(7) == ["open", "open"]
    assert read(7, 8) == ["skipped", "open"]


def test_captions_written_about_items_with_long_ids_are_kept_apart(services: Services) -> None:
    """Ids of files in deep folders differ at their ends."""
    folder = "Fonds 12 - Correspondence of the museum/Series 4 - Exhibitions abroad 1951-1960/Box 31/Folder 007/"
    snapshots = []
    for n, name in enumerate(["image:a", f"image:{folder}scan_0001.jpg", f"image:{folder}scan_0002.jpg"], 1):
        data = query_task(
            SCHEMA,
            modality="image",
            query=PairItem(name, "x.png"),
            candidates=[PairItem("text:t", "t")],
            similarities=[0.5],
            model_version="v",
            round_number=1,
        )
        result = answer_regions(SCHEMA, NONE, written=f"caption {n}")
        annotation = {"id": n, "created_at": "2026-01-01T10:00:00Z", "completed_by": 1, "result": result}
        snapshots.append(TaskSnapshot(n, data, datetime.now(UTC), (annotation,)))
        key = {"key": data["query_key"], "round_number": 1, "modality": "image", "item": n, "candidates": [3]}
        pair_queries.choose(services.store, 1, [key])
    for _ in range(2):
        remember_tasks(services, 1, SCHEMA, snapshots)
        read_answers(services, 1, SCHEMA, snapshots)
    written = catalogue.written(services.store, 1)
    items = catalogue.items(services.store, 1, written.values())
    assert {key: items[number].content for key, number in written.items()} == {
        s.data["query_key"]: f"caption {s.id}" for s in snapshots
    }
    # As it always was where it fits, so that captions that are there already are found again.
    assert items[written[snapshots[0].data["query_key"]]].item_id == "written:1/query/image/image:a"
