"""Several annotators a task, simulated: what a given number of answers is worth by how it is spent and combined.

    python -m benchmarks.annotators                                   # tux12 and fluent57, 10 seeds: an hour
    python -m benchmarks.annotators tux12 --seeds 2 --out /tmp/a.json

Five annotators of known accuracy; half of what they get wrong is always taken for the same other class. Tasks come
in random order. Every arm of a seed has the same split, order and answers: who is asked about a task says the same in
all. Ways to spend the answers: one a task; 2, 3 or 5 a task; 2 a task and one more at a time while the label model is
undecided (`opinions`). Printed: tasks in the training set, how many of them are labelled right, and the accuracy of
the head trained on them, minus that of one answer a task (paired by seed, with standard error).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from backend.blas_threads import one_thread_if
from backend.labelstudio.annotations import Answer, Resolution
from backend.learners.growing import GrowingLabels
from backend.rounds.label_models import LabelModel, resolve_labels
from backend.simulation.labelled_set import LabelledSet, named_set

TEAMS = {
    "good": (0.95, 0.93, 0.9, 0.88, 0.85),
    "mixed": (0.95, 0.9, 0.8, 0.7, 0.55),
    "weak": (0.8, 0.65, 0.6, 0.5, 0.4),
}
SYSTEMATIC = 0.5
BUDGET = 300
BATCH = 60
MEASURES = ("labels", "right", "accuracy")
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Arm:
    """answers: a task gets at first; most: may get while it is undecided."""

    model: LabelModel
    answers: int
    most: int

    @property
    def name(self) -> str:
        if self.answers == 1:
            return "one answer"
        more = f", up to {self.most}" if self.most > self.answers else ""
        return f"{self.model} of {self.answers}{more}"


MODELS: tuple[LabelModel, ...] = ("majority", "one_coin", "dawid_skene")
ARMS = (
    Arm("majority", 1, 1),
    *(Arm(model, k, k) for k in (2, 3, 5) for model in MODELS),
    *(Arm(model, 2, 5) for model in MODELS),
)


def said(truth: np.ndarray, n_classes: int, team: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """(n, annotators) what each would answer to each task."""
    columns = []
    for accuracy in team:
        taken_for = (np.arange(n_classes) + rng.integers(1, n_classes, n_classes)) % n_classes
        anything = (truth + rng.integers(1, n_classes, len(truth))) % n_classes
        mistaken = np.where(rng.random(len(truth)) < SYSTEMATIC, taken_for[truth], anything)
        columns.append(np.where(rng.random(len(truth)) < accuracy, truth, mistaken))
    return np.stack(columns, axis=1)


def spend(
    arm: Arm, budget: int, order: np.ndarray, answers: np.ndarray, turns: np.ndarray, classes: Sequence[str]
) -> dict[int, Resolution]:
    """Ask until the budget is used; what each task came to. turns: (n, annotators) in which order they are asked."""
    asked: dict[int, list[Answer]] = {}
    resolved: dict[int, Resolution] = {}
    upcoming: Iterator[int] = iter(order.tolist())
    left = budget
    while left > 0:
        undecided = [t for t, r in resolved.items() if r.kind == "tie" and len(asked[t]) < arm.most]
        wanted = [(task, 1) for task in undecided]
        fresh = [next(upcoming) for _ in range(min(BATCH, (left - len(wanted)) // arm.answers))]
        wanted += [(task, arm.answers) for task in fresh]
        if not wanted:
            break
        for task, count in wanted:
            for _ in range(min(count, left)):
                given = asked.setdefault(task, [])
                who = int(turns[task, len(given)])
                label = (classes[answers[task, who]],)
                given.append(Answer(len(given) + 1, task, who + 1, EPOCH, label, False, False))
                left -= 1
        if arm.most > arm.answers or left == 0 or left < arm.answers:
            resolved = resolve_labels(asked, arm.model, multi_label=False)
    return resolved


def measure(
    data: LabelledSet, team: str, seed: int, budget: int, models: Sequence[str] = MODELS
) -> list[dict[str, Any]]:
    """All arms of one seed that combine answers by these models."""
    holdout = data.split("random", seed)
    rng = np.random.default_rng([seed, 7])
    answers = said(data.labels, len(data.classes), TEAMS[team], rng)
    turns = np.array([rng.permutation(len(TEAMS[team])) for _ in range(len(data))])
    order = rng.permutation(np.flatnonzero(~holdout))
    position = {name: place for place, name in enumerate(data.classes)}
    features = {m: np.asarray(x, np.float32) for m, x in data.features.items()}
    outside = {m: x[holdout] for m, x in features.items()}
    learner = GrowingLabels(features, len(data.classes))
    rows = []
    for arm in (arm for arm in ARMS if arm.model in models):
        labels = np.full(len(data), -1)
        for task, resolution in spend(arm, budget, order, answers, turns, data.classes).items():
            if resolution.choices:
                labels[task] = position[resolution.choices[0]]
        known = labels >= 0
        hits = learner.fit(labels).probabilities(outside).argmax(axis=1) == data.labels[holdout]
        rows.append(
            {"set": data.name, "team": team, "seed": seed, "arm": arm.name, "labels": int(known.sum()),
             "right": float((labels == data.labels)[known].mean()), "accuracy": float(hits.mean())}
        )  # fmt: skip
    return rows


def _cell(given: tuple[str, str, int, int, Sequence[str], Path]) -> list[dict[str, Any]]:
    name, team, seed, budget, models, cache = given
    with one_thread_if(True):
        return measure(named_set(name, cache, "packaged"), team, seed, budget, models)


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds; accuracy as the difference to one answer a task, paired by seed, with standard error."""
    base = {(r["set"], r["team"], r["seed"]): r["accuracy"] for r in rows if r["arm"] == ARMS[0].name}
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in rows:
        cells.setdefault((r["set"], r["team"], r["arm"]), []).append(r)
    found = []
    for (name, team, arm), runs in cells.items():
        gains = np.array([r["accuracy"] - base[name, team, r["seed"]] for r in runs])
        found.append(
            {"set": name, "team": team, "arm": arm, "seeds": len(runs),
             **{m: float(np.mean([r[m] for r in runs])) for m in MEASURES}, "gain": float(gains.mean()),
             "error": float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0}
        )  # fmt: skip
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """One line an arm, the sets and teams side by side."""
    places = list(dict.fromkeys((r["set"], r["team"]) for r in found))
    known = {(r["set"], r["team"], r["arm"]): r for r in found}
    lines = ["| " + " | ".join(["combined by", *(f"{name}, {team} team" for name, team in places)]) + " |"]
    lines.append("|---" * (len(places) + 1) + "|")
    for arm in (arm for arm in ARMS if any(r["arm"] == arm.name for r in found)):
        cells = []
        for place in places:
            r = known[(*place, arm.name)]
            gain = (
                f"{100 * r['accuracy']:.1f} %"
                if arm is ARMS[0]
                else f"{100 * r['gain']:+.1f} ± {100 * r['error']:.1f}"
            )
            cells.append(f"{r['labels']:.0f}, {100 * r['right']:.0f} %, {gain}")
        lines.append("| " + " | ".join([arm.name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=["tux12", "fluent57"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=BUDGET, help="answers paid for")
    parser.add_argument("--teams", nargs="*", default=list(TEAMS), choices=list(TEAMS))
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where sets and vectors are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/annotators.json"))
    given = parser.parse_args()
    cells = [
        (n, t, s, given.budget, ["majority", *given.models], given.cache)
        for s in range(given.seeds)
        for n in given.datasets
        for t in given.teams
    ]
    rows: list[dict[str, Any]] = []
    facts = {"budget": given.budget, "systematic": SYSTEMATIC, "teams": {name: TEAMS[name] for name in given.teams}}
    with ProcessPoolExecutor(given.jobs) as pool:
        for done in pool.map(_cell, cells):
            rows += done
            # After each: a run that is cut off has told what it had.
            given.out.write_text(json.dumps({**facts, "arms": summarise(rows)}, indent=1) + "\n")
    print(f"{given.budget} answers\n\n{table(summarise(rows))}")


if __name__ == "__main__":
    main()
