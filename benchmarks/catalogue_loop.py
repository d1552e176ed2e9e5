"""A catalogue of two pools on a real Label Studio: added, embedded, asked about, answered.

    python -m benchmarks.catalogue_loop --items 2000 50000

Half of the items are images, half texts; the encoder costs nothing (`benchmarks.cheap_encoder`). Prints JSON and a
table: seconds of `mmal catalogue add`, of embedding all items, of the first round, from the answer that completes a
batch until `next` serves the first question of the next one, and of the steps of that round.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.task_templates import TaskTemplate
from backend.rounds.creating import TEMPLATES
from backend.store import catalogue, rounds
from backend.strategies.pairing import MODALITIES
from benchmarks import sizes
from benchmarks.cheap_encoder import CLASSES, ENVIRONMENT
from tests.live.backend_process import wait_for
from tests.live.pairing_loop import PairingLoop
from tests.live.pool import data_uri

TEMPLATE = "image_text_pairing"


def pools(count: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(images, texts) of so many true pairs; an image is four pixels whose colour names its class and number."""
    images, texts = [], []
    for n in range(count):
        colour = np.array([n % CLASSES, n // CLASSES % 256, n // CLASSES // 256], np.uint8)
        images.append({"id": str(n), "image": data_uri(np.tile(colour, (2, 2, 1)))})
        texts.append({"id": str(n), "text": f"class {n % CLASSES} item {n}"})
    return images, texts


def measure(server: LocalLabelStudio, folder: Path, items: int, batches: int, batch_size: int) -> dict[str, Any]:
    """Seconds of everything that happens to a catalogue of ``items`` items."""
    options = {"batch_size": batch_size, "refresh_share": 1.0}
    config = TaskTemplate.load(TEMPLATES / TEMPLATE).config
    with PairingLoop(server, folder, config, items=0, options=options, environment=ENVIRONMENT) as loop:
        loop.backend.stop("worker")
        images, texts = pools(items // 2)
        began = time.monotonic()
        loop.add(images, texts)
        added = time.monotonic()
        loop.backend.start("worker")
        wait_for("all items to be embedded", lambda: _embedded(loop) == 2 * len(texts), 3600)
        embedded = time.monotonic()
        wait_for("a round over all items", lambda: _rounds_over(loop, 2 * len(texts)), 3600)
        ready = time.monotonic()
        delays, steps = [], []
        for _ in range(batches):
            version = loop.project.version
            for _ in range(batch_size - 1):
                loop.answer_next()
            loop.answer_next()
            submitted = time.monotonic()
            loop.wait_for_version(after=version, seconds=600)
            loop.next_question()
            delays.append(time.monotonic() - submitted)
            [latest] = rounds.of_project(loop.services.store, loop.project_id, "published", limit=1)
            steps.append(latest.seconds)
        pairs = len(loop.pairs())
    mean = {name: round(statistics.mean(step[name] for step in steps), 2) for name in steps[0]}
    return {
        "items": items,
        "batches": batches,
        "added": round(added - began, 1),
        "embedded": round(embedded - added, 1),
        "first_round_after_embedding": round(ready - embedded, 1),
        "last_answer_to_new_question_median": round(statistics.median(delays), 2),
        "last_answer_to_new_question_worst": round(max(delays), 2),
        "pairs": pairs,
        "steps_mean": mean,
    }


def _embedded(loop: PairingLoop) -> int:
    found = catalogue.counts(loop.services.store, loop.project_id, loop.services.encoder_id)
    return sum(found.get(modality, {}).get("embedded", 0) for modality in MODALITIES)


def _rounds_over(loop: PairingLoop, items: int) -> bool:
    latest = rounds.of_project(loop.services.store, loop.project_id, "published", limit=1)
    running = rounds.of_project(loop.services.store, loop.project_id, "running")
    return bool(latest) and not running and int(latest[0].counts["embedded"]) == items


def main() -> None:
    columns = {
        "items": "{items}",
        "added": "{added} s",
        "embedded": "{embedded} s",
        "first round after it": "{first_round_after_embedding} s",
        "last answer -> new question, median (worst)": (
            "{last_answer_to_new_question_median} s ({last_answer_to_new_question_worst} s)"
        ),
    }
    sizes.run(__doc__, "items", 2000, measure, columns)


if __name__ == "__main__":
    main()
