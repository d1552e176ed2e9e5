"""From the last annotation of a batch to the new order, on a real Label Studio, vectors cached.

    python -m benchmarks.loop_latency --tasks 1000 50000

Prints JSON and a table: seconds from the submission that completes the batch until `next` serves the first task of
the new queue, the seconds of each step of that round, and of the publish alone.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from backend.labelstudio.local_server import LocalLabelStudio
from backend.store import rounds
from benchmarks import sizes
from benchmarks.cheap_encoder import ENVIRONMENT
from tests.live.loop import Loop

LABELS = [f"class {n}" for n in range(20)]
CONFIG = (
    '<View><Text name="words" value="$title"/><Image name="picture" value="$photo"/>'
    '<Choices name="kind" toName="words">'
    + "".join(f'<Choice value="{label}"/>' for label in LABELS)
    + "</Choices></View>"
)
PUBLISH_STEPS = ("imported", "explained", "switched", "in force", "cleared")


def measure(server: LocalLabelStudio, folder: Path, tasks: int, batches: int, batch_size: int) -> dict[str, Any]:
    """Seconds of `batches` rounds in a project of `tasks` tasks."""
    data = numbered_tasks(tasks)
    options = {"batch_size": batch_size, "refresh_share": 1.0}
    began = time.monotonic()
    with Loop(server, folder, data=data, config=CONFIG, options=options, environment=ENVIRONMENT) as loop:
        loop.wait_for_version(seconds=3600)
        prepared = time.monotonic() - began
        delays: list[float] = []
        steps: list[dict[str, Any]] = []
        while len(delays) < batches:
            version = loop.project.version
            loop.label_batch(batch_size - 1)
            loop.settle(seconds=300)
            if loop.project.version != version:
                # Another reason brought a round: its queue would flatter the figure.
                continue
            loop.label_next()
            submitted = time.monotonic()
            while loop.project.version == version:
                time.sleep(0.05)
            served = loop.client.next_task(loop.project_id)
            delays.append(time.monotonic() - submitted)
            assert served is not None
            loop.settle()
            assert served.id == loop.queued_ids()[0]
            [latest] = rounds.of_project(loop.services.store, loop.project_id, "published", limit=1)
            steps.append(latest.seconds)
    mean_steps = {name: round(statistics.mean(s[name] for s in steps), 2) for name in steps[0]}
    return {
        "tasks": tasks,
        "batches": batches,
        "prepared_seconds": round(prepared, 1),
        "last_answer_to_new_order_median": round(statistics.median(delays), 2),
        "last_answer_to_new_order_worst": round(max(delays), 2),
        "publish_mean": round(sum(mean_steps[name] for name in PUBLISH_STEPS), 2),
        "steps_mean": mean_steps,
    }


def numbered_tasks(count: int) -> list[dict[str, Any]]:
    """Tasks of 20 classes in turn, with the truth."""
    pictures = [_picture(shade) for shade in range(20)]
    return [
        {"title": f"class {n % 20} item {n}", "photo": pictures[n % 20], "truth": LABELS[n % 20]}
        for n in range(count)
    ]


def _picture(shade: int) -> str:
    import numpy as np

    from tests.live.pool import data_uri

    return data_uri(np.full((2, 2, 3), shade, np.uint8))


def main() -> None:
    columns = {
        "tasks": "{tasks}",
        "last answer -> new order, median (worst)": (
            "{last_answer_to_new_order_median} s ({last_answer_to_new_order_worst} s)"
        ),
        "of it publish": "{publish_mean} s",
        "sync": "{steps_mean[synced]} s",
        "fit": "{steps_mean[fitted]} s",
        "select": "{steps_mean[selected]} s",
    }
    sizes.run(__doc__, "tasks", 1000, measure, columns)


if __name__ == "__main__":
    main()
