"""An annotator that knows the truth: labels in the order Label Studio serves, and scores what was learnt from it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from backend.labelstudio.client import LabelStudio
from backend.rounds.services import Services, options_of, schema_of
from backend.rounds.status import project_status
from backend.simulation.holdout import Holdout, labels_saved
from backend.simulation.pairs import Pairs, embed_dataset
from backend.store import projects
from backend.store.tables import Project

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
    pace = Pace(services, project_id)
    for _ in tqdm(range(count), desc="  labelling", unit=" tasks"):
        task = client.next_task(project_id)
        if task is None:
            break
        row = row_of[task.data["pair"]]
        client.answer(task, schema, [pairs.classes[pairs.labels[row]]])
        answered.append(row)
        pace.wait()
    return answered


class Pace:
    """A person takes seconds over a task, so a due round is through before many more answers: waits that long.

    A script would otherwise run past the batch into the reserve while the round is on its way.
    """

    def __init__(self, services: Services, project_id: int) -> None:
        self.services, self.project_id = services, project_id
        self.version, self.answers = self._project().version, 0

    def wait(self) -> None:
        """After an answer: go on at once, or, where the answers of this queue make a round due, with the next one."""
        self.answers += 1
        options = options_of(self._project())
        while True:
            project = self._project()
            if project.version != self.version:
                self.version, self.answers = project.version, 0
                return
            if self.answers < options.refresh_share * options.batch_size:
                return
            if project_status(self.services, project).pool == 0:
                return
            time.sleep(0.1)

    def _project(self) -> Project:
        return projects.get(self.services.store, self.project_id)


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
