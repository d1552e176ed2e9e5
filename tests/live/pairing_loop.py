"""A pairing project with a hidden truth, its backend, and an annotator who knows the truth."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.labelstudio.client import ServedTask
from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.pair_tasks import NONE
from backend.labelstudio.schema import TaskSchema
from backend.rounds.connecting import attach_project, set_options
from backend.rounds.pairing.round import settled_pairs
from backend.rounds.services import options_of
from backend.store import catalogue, pair_queries, projects, rounds
from backend.store.tables import PairQueryRow, Project
from tests.live.backend_process import PATIENCE, BackendProcess, wait_for
from tests.live.label_studio import AnnotatorClient
from tests.pair_form import answer_regions

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 60, 200),
    "yellow": (230, 210, 40),
    "grey": (120,) * 3,
}


def picture(left: str, right: str, seed: int) -> str:
    """A picture of two colours as a `data:` address; the seed makes it unlike any other."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((32, 32, 3))
    pixels[:, :16], pixels[:, 16:] = COLOURS[left], COLOURS[right]
    pixels += rng.normal(0, 8, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def pools(count: int, first: int = 0) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(images, texts): image n belongs to text n."""
    names = list(COLOURS)
    images, texts = [], []
    for n in range(first, first + count):
        left, right = names[n % 5], names[(n // 5) % 5]
        images.append({"id": str(n), "image": picture(left, right, n)})
        texts.append({"id": str(n), "text": f"left {left}side right {right}end number {n}"})
    return images, texts


class PairingLoop:
    """Everything a team has; the annotator answers with the truth, "none of these" where it is not offered."""

    def __init__(
        self,
        server: LocalLabelStudio,
        folder: Path,
        config: str,
        *,
        items: int = 40,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.client = AnnotatorClient(server.url, server.admin.token)
        self.folder = folder
        self.project_id = self.client.create_project(folder.name[:50], config).id
        self.schema = TaskSchema.from_label_config(config)
        self.backend = BackendProcess(folder / "backend", server.url, server.admin.token, environment)
        self.services = self.backend.services()
        self.items, self.options = items, dict(options or {})

    def __enter__(self) -> PairingLoop:
        self.backend.start("web")
        try:
            attach_project(self.services, self.project_id)
            set_options(self.services, self.project_id, self.options, "the test")
            if self.items:
                self.add(*pools(self.items))
            self.backend.start("worker")
        except BaseException:
            self.backend.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.backend.stop()

    def add(self, images: list[dict[str, str]], texts: list[dict[str, str]], command: str = "catalogue add") -> str:
        """Add items as an admin does."""
        arguments = [*command.split(), "--project", str(self.project_id)]
        for name, rows in (("images", images), ("texts", texts)):
            if rows:
                path = self.folder / f"{name}.jsonl"
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
                arguments += [f"--{name}", str(path)]
        done = self.backend.cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def project(self) -> Project:
        return projects.get(self.services.store, self.project_id)

    def questions(self) -> list[PairQueryRow]:
        return pair_queries.every(self.services.store, self.project_id)

    def pairs(self) -> set[tuple[str, str]]:
        """Known pairs as ids."""
        found = settled_pairs(
            self.services,
            self.project_id,
            self.questions(),
            self.project.round_number + 1,
            options_of(self.project),
        )
        items = catalogue.items(self.services.store, self.project_id, found.paired)
        return {(items[image].item_id, items[text].item_id) for image, text in found.pairs}

    def wait_for_version(self, after: str = "", seconds: float = PATIENCE) -> str:
        wait_for(f"a version after {after!r}", lambda: self.project.version not in ("", after), seconds)
        wait_for("the round to end", lambda: not rounds.of_project(self.services.store, self.project_id, "running"))
        return self.project.version

    def next_question(self) -> ServedTask:
        served = self.client.next_task(self.project_id)
        assert served is not None, "Label Studio has no task left"
        return served

    def truth(self, data: Mapping[str, Any]) -> str:
        """The id of the counterpart."""
        modality, _, name = data["query_id"].partition(":")
        return f"{'text' if modality == 'image' else 'image'}:{name}"

    def answer_next(self) -> ServedTask:
        """Take the question Label Studio serves and answer it."""
        served = self.next_question()
        partner = self.truth(served.data)
        self.answer(served, partner if partner in served.data["candidate_ids"] else NONE)
        return served

    def answer(self, served: ServedTask, *choices: str, written: str | None = None) -> dict[str, Any]:
        return self.client.create_annotation(served.id, answer_regions(self.schema, *choices, written=written))

    def wait_for_answers(self, count: int) -> None:
        wait_for(
            f"{count} answers read",
            lambda: sum(q.answer not in ("open", "withdrawn", "deleted") for q in self.questions()) >= count,
        )
