"""From replays to figures: areas, paired differences, labels saved, and the JSON they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from backend.errors import ReplayInvalid
from backend.simulation.experiment import PROTOCOL
from backend.simulation.holdout import labels_saved
from backend.simulation.pairing.experiment import PROTOCOL as PAIRING_PROTOCOL
from backend.simulation.replay import area
from backend.simulation.retrieval.experiment import PROTOCOL as RETRIEVAL_PROTOCOL

FORMAT = "mmal simulate 1"
DIGITS = 4
# A difference is clear beyond this two-sided bound of Student's t for its number of seeds.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Yardstick:
    """What arms of a task are compared by.

    areas: measures whose mean over the curve is kept, where they were taken; the first is the headline; reference:
    the arm that all are held against; drawn: measure -> what it says at an axis; spent: what is counted there;
    protocol: number of the replays' protocol.
    """

    areas: tuple[str, ...]
    reference: str
    drawn: Mapping[str, str]
    spent: str
    protocol: int

    @property
    def measure(self) -> str:
        """The headline."""
        return self.areas[0]


YARDSTICKS: Mapping[str, Yardstick] = {
    "classification": Yardstick(
        ("accuracy", "macro_f1"), "random", {"accuracy": "accuracy on held-out items, %"}, "labels", PROTOCOL
    ),
    "multi_label": Yardstick(
        ("map", "micro_f1", "macro_f1", "accuracy"),
        "random",
        {"map": "mean average precision on held-out items, %"},
        "labelled items",
        PROTOCOL,
    ),
    "pairing": Yardstick(
        ("recall_1", "recall_5", "recall_10", "group", "group_text", "group_image"),
        "pair_random",
        {"recall_1": "recall@1 of held-out pairs, both ways, %", "group": "group score of held-out couples, %"},
        "questions",
        PAIRING_PROTOCOL,
    ),
    "retrieval": Yardstick(
        ("map", "map_labels", "map_image_to_text", "map_text_to_image"),
        "random",
        {"map": "mAP@all among held-out pairs, both ways, %"},
        "labelled pairs",
        RETRIEVAL_PROTOCOL,
    ),
}


@dataclass(frozen=True)
class Difference:
    """Mean paired difference in points, its standard error over seeds (NaN for one), and in how many it is > 0.

    The error covers another draw of start, split and noise from the same set. Splits of one set overlap, so it is too
    narrow for what the set was drawn from. held_out: items scored on by items of the pool, 0 where unknown. By it
    ``sign(corrected=True)`` widens the error sqrt(1 + seeds * held_out) times, the correction of Nadeau and Bengio
    (Machine Learning, 2003) with the pool as the training set. They derived it for training on all of it, which a
    replay does not do, so it is a guide and no interval.
    """

    mean: float
    error: float
    ahead: int
    seeds: int
    held_out: float = 0.0

    def sign(self, *, corrected: bool = False) -> int:
        """1 where it is clearly above 0, -1 where clearly below, 0 where chance may be it."""
        wider = np.sqrt(1.0 + self.seeds * self.held_out) if corrected else 1.0
        # One seed has no quantile and no error, and so no clear difference.
        bound = stdtrit(self.seeds - 1, (1.0 + CONFIDENCE) / 2.0) * wider * self.error
        return int(self.mean > bound) - int(self.mean < -bound)

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" if np.isnan(self.error) else f"{self.mean:+.1f} ± {self.error:.1f}"


@dataclass(frozen=True)
class ArmResult:
    """One arm on one set, scenario and split.

    seeds: those replayed; areas: measure (``Yardstick.areas``) -> (s,) mean over the curve; mean, spread: measure
    -> (r,) mean and standard deviation over seeds; last, average: any measure -> its mean over seeds after the last
    batch, and over all batches where it was measured.
    """

    seeds: list[int]
    areas: Mapping[str, list[float]]
    mean: Mapping[str, list[float]]
    spread: Mapping[str, list[float]]
    last: Mapping[str, float]
    average: Mapping[str, float]

    def joined(self, other: ArmResult) -> ArmResult:
        """The same arm with the seeds of both, or ``other`` where they have a seed in common."""
        if set(self.seeds) & set(other.seeds):
            return other
        share = len(self.seeds) / (len(self.seeds) + len(other.seeds))
        return ArmResult(
            [*self.seeds, *other.seeds],
            {name: [*values, *other.areas[name]] for name, values in self.areas.items()},
            {name: _short(_between(values, other.mean[name], share)) for name, values in self.mean.items()},
            {name: self._joint_spread(other, name) for name in {**self.spread, **other.spread}},
            _between_facts(self.last, other.last, share),
            _between_facts(self.average, other.average, share),
        )

    def _joint_spread(self, other: ArmResult, name: str) -> list[float]:
        """Standard deviation over the seeds of both, from the mean and spread of each; one seed has no spread."""
        parts = [
            (len(one.seeds), np.array(one.mean[name]), np.array(one.spread.get(name, 0.0))) for one in (self, other)
        ]
        total = sum(count for count, _, _ in parts)
        centre = sum(count * mean for count, mean, _ in parts) / total
        squares = sum((count - 1) * spread**2 + count * (mean - centre) ** 2 for count, mean, spread in parts)
        return _short(np.sqrt(squares / (total - 1)))


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
    task: str = "classification"

    @property
    def title(self) -> str:
        """Set, scenario and split in words."""
        return f"{self.dataset}, {self.scenario}, {self.split} split"

    @property
    def yardstick(self) -> Yardstick:
        """What the arms are compared by."""
        return YARDSTICKS[self.task]

    def difference(self, arm: str, other: str | None = None, measure: str | None = None) -> Difference:
        """Area of one arm minus that of another (of the reference), over the seeds they share; of the headline if no
        measure is named.

        Raises
        ------
        ReplayInvalid
            They share none.
        """
        other, measure = other or self.yardstick.reference, measure or self.yardstick.measure
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
        return Difference(
            float(gaps.mean()),
            error,
            int((gaps > 0).sum()),
            len(gaps),
            self.scored_on / self.pool if self.pool else 0.0,
        )

    def saved(self, arm: str) -> float:
        """Share of the labels not needed to reach the reference's final headline; 0 where never reached."""
        measure = self.yardstick.measure
        goal = self.arms[self.yardstick.reference].mean[measure][-1]
        return labels_saved(self.n_labels, np.array(self.arms[arm].mean[measure]), goal)

    def ranking(self, measure: str | None = None) -> list[str]:
        """Arms by falling mean difference to the reference."""
        return sorted(self.arms, key=lambda arm: -self.difference(arm, None, measure).mean)


def compare(cells: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Gather what ``experiment.run`` returned, one comparison for each set, scenario and split."""
    grouped: dict[tuple[str, ...], dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        place = (cell.get("task", "classification"), cell["dataset"], cell["scenario"], cell["split"])
        grouped.setdefault(place, {}).setdefault(cell["arm"], []).append(cell)
    found = []
    for (task, dataset, scenario, split), arms in grouped.items():
        first = next(iter(arms.values()))[0]
        reference = arms[YARDSTICKS[task].reference]
        found.append(
            Comparison(
                dataset,
                scenario,
                split,
                first["n_labels"],
                first["classes"],
                # Sides differ by an item or two from seed to seed.
                round(float(np.mean([cell["pool"] for cell in reference]))),
                round(float(np.mean([cell["scored_on"] for cell in reference]))),
                {arm: _arm_result(own, first["n_labels"], YARDSTICKS[task]) for arm, own in arms.items()},
                task,
            )
        )
    return found


def _arm_result(cells: Sequence[Mapping[str, Any]], n_labels: list[int], yardstick: Yardstick) -> ArmResult:
    if any(cell["n_labels"] != n_labels for cell in cells):
        raise ReplayInvalid(f"{cells[0]['arm']}: replays of one comparison must spend the same numbers of labels")
    ordered = sorted(cells, key=lambda cell: cell["seed"])
    table = {
        name: np.array([cell["measures"][name] for cell in ordered], dtype=np.float64)
        for name in ordered[0]["measures"]
    }
    taken = [measure for measure in yardstick.areas if measure in table]
    spread = [measure for measure in taken if measure in yardstick.drawn and len(ordered) > 1]
    return ArmResult(
        [cell["seed"] for cell in ordered],
        {measure: _short([area(np.array(n_labels), curve) for curve in table[measure]]) for measure in taken},
        {measure: _short(table[measure].mean(axis=0)) for measure in taken},
        {measure: _short(table[measure].std(axis=0, ddof=1)) for measure in spread},
        _means({name: values[:, -1] for name, values in table.items()}),
        _means(table),
    )


def _means(table: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of what was measured; nothing of what never was."""
    known = {name: values[~np.isnan(values)] for name, values in table.items()}
    return {name: _short([values.mean()])[0] for name, values in known.items() if len(values)}


def _between(first: Sequence[float], second: Sequence[float], share: float) -> np.ndarray:
    return share * np.array(first) + (1.0 - share) * np.array(second)


def _between_facts(first: Mapping[str, float], second: Mapping[str, float], share: float) -> dict[str, float]:
    """Of each measure that one of them took."""
    joint = {**first, **second}
    return {
        name: _short(_between([first.get(name, joint[name])], [second.get(name, joint[name])], share))[0]
        for name in joint
    }


def _short(values: Any) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def write_results(path: Path, comparisons: Sequence[Comparison], about: Mapping[str, Any]) -> None:
    """Write results of one task as JSON, one line an arm; ``about``: how they came about."""
    protocol = comparisons[0].yardstick.protocol if comparisons else PROTOCOL
    head = json.dumps({"format": FORMAT, "protocol": protocol, **about}, ensure_ascii=False)
    blocks = []
    for one in comparisons:
        facts = {name: value for name, value in vars(one).items() if name != "arms"}
        arms = ",\n".join(f"{json.dumps(arm)}: {json.dumps(vars(result))}" for arm, result in one.arms.items())
        blocks.append(f'{json.dumps(facts)[:-1]}, "arms": {{\n{arms}}}}}')
    path.write_text(f'{head[:-1]}, "comparisons": [\n' + ",\n".join(blocks) + "]}\n", encoding="utf-8")


def read_results(paths: Sequence[Path]) -> list[Comparison]:
    """Read results, arms of the same set, scenario and split together, and seeds of an arm that two files have; where
    they have a seed in common, the later file's arm stands alone.

    Raises
    ------
    ReplayInvalid
        A file is none of ours, or two of them spent different numbers of labels on the same set.
    """
    found: dict[tuple[str, str, str, str], Comparison] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            read = [
                Comparison(**{**one, "arms": {arm: ArmResult(**own) for arm, own in one["arms"].items()}})
                for one in content["comparisons"]
            ]
            protocols = {one.yardstick.protocol for one in read} or {PROTOCOL}
            if content["format"] != FORMAT or {content["protocol"]} != protocols:
                raise ValueError(f"format {content['format']!r}, protocol {content['protocol']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReplayInvalid(f"{path} holds no results of this version of mmal simulate: {error}") from error
        for one in read:
            known = found.setdefault((one.task, one.dataset, one.scenario, one.split), one)
            if known.n_labels != one.n_labels:
                raise ReplayInvalid(f"{path}: {one.title} spent {one.n_labels}, another file {known.n_labels}")
            if known is not one:
                for arm, own in one.arms.items():
                    known.arms[arm] = known.arms[arm].joined(own) if arm in known.arms else own
    return list(found.values())
