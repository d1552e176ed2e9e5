"""Pairing projects without Label Studio: items with the vectors a test gives them, and the rounds of a project."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.rounds.creating import TEMPLATES
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.round import run_pairing_round
from backend.rounds.pairing.triggers import due_pairing
from backend.rounds.services import Services, schema_of
from backend.settings import Settings
from backend.store import catalogue, pair_queries, projects, rounds, tasks
from backend.store.catalogue import NewItem
from backend.store.tables import PairQueryRow, Round
from backend.strategies.pairing import MODALITIES
from tests.live.toy_encoder import IMAGE_DIM, TEXT_DIM


class PairingWorld:
    """A pairing project whose items are embedded as a test says."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.services = Services(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make"))
        self.store, self.encoder = self.services.store, self.services.encoder_id
        self.names = count()
        projects.remember(
            self.store,
            1,
            state="attached",
            label_config=(TEMPLATES / "image_text_pairing" / "config.xml").read_text(),
            options=ProjectOptions(strategy="three_step", **options).model_dump(),
        )

    def arrive(self, each: int, *, embedded: bool = True, state: str = "buffer") -> list[int]:
        """So many images and texts; tells their numbers."""
        items = [NewItem(f"{m}:{next(self.names)}", m, "content") for m in MODALITIES for _ in range(each)]
        catalogue.add(self.store, 1, items, state=state)
        numbers = sorted(catalogue.numbers_of(self.store, 1, [item.item_id for item in items]).values())
        if embedded:
            catalogue.embedded(self.store, 1, self.encoder, {n: ("content", f"hash {n}", "") for n in numbers})
        return numbers

    def ask(self, item: int, *candidates: int, round_number: int = 1, **answer: Any) -> None:
        key = f"{round_number}/query/{item}"
        question = {"key": key, "round_number": round_number, "modality": "image", "item": item}
        pair_queries.choose(self.store, 1, [{**question, "candidates": list(candidates), "task_id": item, **answer}])

    def open_round(self, trigger: str = "") -> Round:
        project = projects.get(self.store, 1)
        number = project.round_number + 1
        version = f"v{number}-three_step"
        return rounds.start(
            self.store,
            1,
            number=number,
            version=version,
            trigger=trigger,
            strategy="three_step",
            options=project.options,
            seed=number,
        )

    def publish(self, **counts: Any) -> None:
        opened = self.open_round()
        rounds.reach(self.store, opened.id, "selected", counts=counts)
        rounds.put_in_force(self.store, opened)

    def due(self) -> str:
        return due_pairing(self.services, projects.get(self.store, 1))

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (_, state), there in catalogue.held(self.store, 1, self.encoder).items():
            found[state] = found.get(state, 0) + there.items
        return found


class PairingRounds(PairingWorld):
    """Runs the rounds of its project; image n and text n of the items that arrived together belong together."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **{"audit_share": 0.0, **options})
        self.services.label_studio = self.label_studio = KeptTasks()  # type: ignore[assignment]
        self.services.media = Pictures()  # type: ignore[assignment]
        assert self.services.encoder.dims == {"image": IMAGE_DIM, "text": TEXT_DIM}
        self.mates: dict[int, int] = {}

    def arrive(self, each: int, *, embedded: bool = True, state: str = "buffer") -> list[int]:
        numbers = super().arrive(each, embedded=embedded, state=state)
        vectors = self.services.vectors()
        assert vectors is not None
        truth = np.random.default_rng(numbers[0]).normal(size=(each, TEXT_DIM)).astype(np.float16)
        for modality, mine in zip(MODALITIES, (numbers[:each], numbers[each:]), strict=True):
            vectors.append(modality, [f"hash {n}" for n in mine], truth[:, : vectors.dims[modality]])
        self.mates |= dict(zip(numbers, numbers[each:] + numbers[:each], strict=True))
        return numbers

    def run(self, why: str) -> Round:
        """One round; what stops it, a test that makes Label Studio fail, is the test's."""
        opened = self.open_round(why)
        try:
            run_pairing_round(self.services, opened, schema_of(projects.get(self.store, 1)), _Counts(self, opened))
        except ConnectionError as error:
            rounds.give_up(self.store, opened, "failed", str(error))
        ended = rounds.get(self.store, opened.id)
        assert ended is not None
        return ended

    def questions(self, answer: str = "open") -> list[PairQueryRow]:
        return [q for q in pair_queries.every(self.store, 1) if q.answer == answer]

    def answer(self, question: PairQueryRow, answer: str = "", partner: int = 0) -> None:
        """Answer with the truth, or so."""
        mate = self.mates[question.item]
        if not answer:
            answer, partner = ("pick", mate) if mate in question.candidates else ("none", 0)
        given = {"key": question.key, "task_id": question.task_id, "answer": answer, "partner": partner}
        at = f"2026-01-01T10:00:00.{question.task_id:06d}Z"
        pair_queries.answered(self.store, 1, [{**given, "further_partners": [], "answered_at": at}])
        tasks.label(self.store, 1, [tasks.Labelling(question.task_id, "label", [answer], [])])


class _Counts:
    """The progress of a round as far as its end is told by it."""

    def __init__(self, world: PairingWorld, opened: Round) -> None:
        self.world, self.opened = world, opened
        self.counts: dict[str, Any] = {}

    def __call__(self, point: str) -> None:
        rounds.reach(self.world.store, self.opened.id, point, counts=self.counts)


class KeptTasks:
    """Stands for a Label Studio that keeps tasks and versions."""

    def __init__(self) -> None:
        self.tasks: set[int] = set()
        self.versions: dict[int, dict[str, int]] = {}
        self.published: dict[str, int] = {}
        self.ids = count(1)
        self.down = False

    def task_ids(self, _project_id: int) -> set[int]:
        return set(self.tasks)

    def tasks_by_id(self, _project_id: int, _task_ids: set[int]) -> dict[int, Any]:
        return {}

    def import_tasks(self, _project_id: int, rows: Sequence[dict[str, Any]]) -> list[int]:
        if self.down:
            raise ConnectionError("Label Studio is down")
        made = [next(self.ids) for _ in rows]
        self.tasks |= set(made)
        return made

    def delete_untouched_tasks(self, _project_id: int, task_ids: Iterable[int]) -> set[int]:
        self.tasks -= set(task_ids)
        return set(task_ids)

    def import_predictions(self, _project_id: int, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self.published[row["model_version"]] = self.published.get(row["model_version"], 0) + 1

    def model_versions(self, _project_id: int) -> dict[str, int]:
        return dict(self.published)

    def set_model_version(self, _project_id: int, version: str) -> None:
        assert version in self.published

    def write_field(self, _project_id: int, _task_ids: Iterable[int], _name: str, _value: str) -> None: ...

    def delete_predictions_of(self, _project_id: int, _task_ids: Iterable[int]) -> None: ...

    def delete_model_version(self, _project_id: int, version: str) -> None:
        del self.published[version]


class Pictures:
    """Stands for a host that has every picture."""

    def fetch(self, _uri: str, _task_id: int | None = None) -> bytes:
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        return picture.getvalue()
