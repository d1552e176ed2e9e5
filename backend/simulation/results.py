"""From replays to figures: areas, paired differences, labels saved, and the JSON they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.experiment import PROTOCOL
from backend.simulation.holdout import labels_saved
from backend.simulation.replay import Curve, aulc

FORMAT = "mmal simulate 1"
DIGITS = 4


@dataclass(frozen=True)
class Difference:
    """Mean paired difference in points, its standard error (NaN for one seed), and how many of ``seeds`` are > 0."""

    mean: float
    error: float
    ahead: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" if np.isnan(self.error) else f"{self.mean:+.1f} ± {self.error:.1f}"


@dataclass(frozen=True)
class ArmResult:
    """One arm on one set, scenario and split.

    seeds: those replayed; areas: measure ("accuracy", "macro_f1") -> (s,) mean over the curve; mean, spread: measure
    -> (r,) mean and standard deviation over seeds; last, average: any measure -> its mean over seeds after the last
    batch, and over all batches where it was measured.
    """

    seeds: list[int]
    areas: Mapping[str, list[float]]
    mean: Mapping[str, list[float]]
    spread: Mapping[str, list[float]]
    last: Mapping[str, float]
    average: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """All arms on one set, scenario and split; ``n_labels``: (r,) labels spent."""

    dataset: str
    scenario: str
    split: str
    n_labels: list[int]
    classes: int
    pool: int
    scored_on: int
    arms: dict[str, ArmResult]

    @property
    def title(self) -> str:
        """Set, scenario and split in words."""
        return f"{self.dataset}, {self.scenario}, {self.split} split"

    def difference(self, arm: str, other: str = "random", measure: str = "accuracy") -> Difference:
        """Area of one arm minus that of another, over the seeds they share.

        Raises
        ------
        ReplayInvalid
            They share none.
        """
        first, second = self.arms[arm], self.arms[other]
        shared = [seed for seed in first.seeds if seed in second.seeds]
        if not shared:
            raise ReplayInvalid(f"{self.title}: {arm} and {other} share no seed; replay them on the same seeds")
        gaps = 100 * np.array(
            [
                first.areas[measure][first.seeds.index(seed)] - second.areas[measure][second.seeds.index(seed)]
                for seed in shared
            ]
        )
        error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
        return Difference(float(gaps.mean()), error, int((gaps > 0).sum()), len(gaps))

    def saved(self, arm: str) -> float:
        """Share of the labels not needed to reach random's final accuracy; 0 where never reached."""
        goal = self.arms["random"].mean["accuracy"][-1]
        return labels_saved(self.n_labels, np.array(self.arms[arm].mean["accuracy"]), goal)

    def ranking(self, measure: str = "accuracy") -> list[str]:
        """Arms by falling mean difference to random."""
        return sorted(self.arms, key=lambda arm: -self.difference(arm, "random", measure).mean)


def compare(cells: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Gather what ``experiment.run`` returned, one comparison for each set, scenario and split."""
    grouped: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        place = (cell["dataset"], cell["scenario"], cell["split"])
        grouped.setdefault(place, {}).setdefault(cell["arm"], []).append(cell)
    found = []
    for (dataset, scenario, split), arms in grouped.items():
        first = next(iter(arms.values()))[0]
        found.append(
            Comparison(
                dataset,
                scenario,
                split,
                first["n_labels"],
                first["classes"],
                # Sides differ by an item or two from seed to seed.
                round(float(np.mean([cell["pool"] for cell in arms["random"]]))),
                round(float(np.mean([cell["scored_on"] for cell in arms["random"]]))),
                {arm: _arm_result(own, first["n_labels"]) for arm, own in arms.items()},
            )
        )
    return found


def _arm_result(cells: Sequence[Mapping[str, Any]], n_labels: list[int]) -> ArmResult:
    if any(cell["n_labels"] != n_labels for cell in cells):
        raise ReplayInvalid(f"{cells[0]['arm']}: replays of one comparison must spend the same numbers of labels")
    ordered = sorted(cells, key=lambda cell: cell["seed"])
    table = {
        name: np.array([cell["measures"][name] for cell in ordered], dtype=np.float64)
        for name in ordered[0]["measures"]
    }
    curves = [
        Curve(np.array(n_labels), accuracy, f1, np.empty(0, np.int64))
        for accuracy, f1 in zip(table["accuracy"], table["macro_f1"], strict=True)
    ]
    several = len(ordered) > 1
    return ArmResult(
        [cell["seed"] for cell in ordered],
        {measure: _short([aulc(curve, measure) for curve in curves]) for measure in ("accuracy", "macro_f1")},
        {measure: _short(table[measure].mean(axis=0)) for measure in ("accuracy", "macro_f1")},
        {measure: _short(table[measure].std(axis=0, ddof=1)) for measure in ("accuracy",) if several},
        {name: _short([values[:, -1].mean()])[0] for name, values in table.items()},
        {name: _short([np.nanmean(values)])[0] for name, values in table.items()},
    )


def _short(values: Any) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def write_results(path: Path, comparisons: Sequence[Comparison], about: Mapping[str, Any]) -> None:
    """Write results as JSON, one line an arm; ``about``: how they came about."""
    head = json.dumps({"format": FORMAT, "protocol": PROTOCOL, **about}, ensure_ascii=False)
    blocks = []
    for one in comparisons:
        facts = {name: value for name, value in vars(one).items() if name != "arms"}
        arms = ",\n".join(f"{json.dumps(arm)}: {json.dumps(vars(result))}" for arm, result in one.arms.items())
        blocks.append(f'{json.dumps(facts)[:-1]}, "arms": {{\n{arms}}}}}')
    path.write_text(f'{head[:-1]}, "comparisons": [\n' + ",\n".join(blocks) + "]}\n", encoding="utf-8")


def read_results(paths: Sequence[Path]) -> list[Comparison]:
    """Read results, arms of the same set, scenario and split together; of an arm that two files have, the later's.

    Raises
    ------
    ReplayInvalid
        A file is none of ours, or two of them spent different numbers of labels on the same set.
    """
    found: dict[tuple[str, str, str], Comparison] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["protocol"] != PROTOCOL:
                raise ValueError(f"format {content['format']!r}, protocol {content['protocol']}")
            read = [
                Comparison(**{**one, "arms": {arm: ArmResult(**own) for arm, own in one["arms"].items()}})
                for one in content["comparisons"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReplayInvalid(f"{path} holds no results of this version of mmal simulate: {error}") from error
        for one in read:
            known = found.setdefault((one.dataset, one.scenario, one.split), one)
            if known.n_labels != one.n_labels:
                raise ReplayInvalid(f"{path}: {one.title} spent {one.n_labels}, another file {known.n_labels}")
            known.arms.update(one.arms)
    return list(found.values())
