"""An annotator that knows the truth: labels in the order Label Studio serves, and scores what was learnt from it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from backend.labelstudio.client import LabelStudio
from backend.rounds.services import Services, schema_of
from backend.rounds.status import project_status
from backend.simulation.holdout import Holdout, labels_saved
from backend.simulation.pairs import Pairs, embed_dataset
from backend.store import projects

REPLAYS = 20
EVERY = 10
SEED = 20261122


def annotate(services: Services, client: LabelStudio, project_id: int, pairs: Pairs, count: int) -> dict[str, Any]:
    """Label `count` tasks, print and return the curve of this run beside those of random labelling."""
    chosen = label(services, client, project_id, pairs, count)
    print("Scoring on the pairs that were never imported ...", flush=True)
    assert pairs.holdout is not None
    features = embed_dataset(pairs, services.settings.encoder, services.settings.data_dir / "holdout")
    holdout = Holdout(features, pairs.labels, pairs.holdout, len(pairs.classes))
    sizes = [*range(EVERY, len(chosen), EVERY), len(chosen)]
    ours = np.array([holdout.accuracy(chosen[:size]) for size in sizes])
    random = holdout.random_replays(sizes, REPLAYS, SEED)
    _print_curves(sizes, ours, random, int(pairs.holdout.sum()))
    return {"labels": sizes, "accuracy": ours.tolist(), "random": random.tolist()}


def label(services: Services, client: LabelStudio, project_id: int, pairs: Pairs, count: int) -> list[int]:
    """Answer the next `count` tasks with the truth; the items answered, in order, those of earlier runs first."""
    schema = schema_of(projects.get(services.store, project_id))
    row_of = {name: row for row, name in enumerate(pairs.ids)}
    answered = [row_of[task.data["pair"]] for task in client.annotated_tasks(project_id)]
    for _ in tqdm(range(count), desc="  labelling", unit=" tasks"):
        task = client.next_task(project_id)
        if task is None:
            break
        row = row_of[task.data["pair"]]
        client.submit(task.id, schema, [pairs.classes[pairs.labels[row]]])
        answered.append(row)
        _wait_for_due_round(services, project_id)
    return answered


def _wait_for_due_round(services: Services, project_id: int) -> None:
    """A person takes seconds over a task, so a round is through before many more answers: give it that time."""
    status = project_status(services, projects.get(services.store, project_id))
    used = status.batch_size - status.batch_remaining
    while status.round_requested or status.round_running or used >= 0.8 * status.batch_size:
        time.sleep(0.2)
        status = project_status(services, projects.get(services.store, project_id))
        used = status.batch_size - status.batch_remaining
        if status.pool == 0:
            return


def _print_curves(sizes: list[int], ours: np.ndarray, random: np.ndarray, held_out: int) -> None:
    mean, error = random.mean(0), random.std(0, ddof=1) / np.sqrt(len(random))
    print(f"\n  accuracy on {held_out} held-out pairs      this run    random ({len(random)} replays, mean +- s.e.)")
    for size, a, m, e in zip(sizes, ours, mean, error, strict=True):
        print(f"  {size:4d} labels                        {a:6.1%}      {m:6.1%} +- {e:.1%}")
    saved = labels_saved(sizes, ours, float(mean[-1]))
    area = float(np.trapezoid(ours - mean, sizes) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else 0.0
    print(
        f"  mean difference over the curve: {100 * area:+.1f} points; labels saved to reach random's end: {saved:.0%}"
    )
