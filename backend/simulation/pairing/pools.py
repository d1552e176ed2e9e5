"""What the two pools of a replay hold: the hidden pairs as they are, classes of steep sizes, or images of few."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.simulation.pairing.pair_sets import PairingSet

# The annotator finds a counterpart that is not among the candidates, at the cost of any other question.
OUTSIDE = "_outside"
_POOLS: Mapping[str, str] = {
    "plain": "every round starts from a projection that was trained on other sets",
    "no_start": "every round starts from nothing: canonical directions of the pairs so far",
    "imbalanced": "n_max / rank^1.5 pairs of each class in the pool, 4 at least; 8 at most in the test",
    "uneven": "images of few classes, a third of the pool; all texts, two thirds of them without counterpart",
}
SCENARIOS: Mapping[str, str] = {
    **_POOLS,
    **{f"{name}{OUTSIDE}": f"{said}; counterparts outside the candidates are found" for name, said in _POOLS.items()},
}
# Part of the pool whose images are there in "uneven".
PICTURED = 1 / 3
# Sizes of the classes in "imbalanced": the sets' own are long-tailed already, in pool and test alike.
STEEPNESS, LEAST_OF_CLASS, MOST_TESTED = 1.5, 4, 8


def pools_of(scenario: str) -> str:
    """The scenario without what its annotator finds outside the candidates."""
    return scenario.removesuffix(OUTSIDE)


@dataclass(frozen=True)
class Pools:
    """rows: modality -> rows of the set that are in its pool; tested: rows that are scored on; all ascending."""

    rows: Mapping[str, np.ndarray]
    tested: np.ndarray

    @property
    def hidden(self) -> int:
        """Pairs with both sides in the pools."""
        return len(np.intersect1d(self.rows["image"], self.rows["text"]))

    @property
    def smaller(self) -> int:
        """Items of the smaller pool."""
        return min(map(len, self.rows.values()))


def drawn_pools(data: PairingSet, scenario: str, seed: int) -> Pools:
    """The pools of one seed, drawn from the seed and the scenario's name: all arms meet the same items,
    and so do both annotators.

    Raises
    ------
    ReplayInvalid
        The set is too small.
    """
    pool, tested = data.split(seed)
    scenario = pools_of(scenario)
    rng = np.random.default_rng([seed, zlib.crc32(scenario.encode())])
    images = texts = pool
    if scenario == "imbalanced":
        images = texts = pool[_within(data.labels[pool], _steep(data.labels[pool]), rng)]
        flat = dict.fromkeys(np.unique(data.labels).tolist(), MOST_TESTED)
        tested = tested[_within(data.labels[tested], flat, rng)]
    elif scenario == "uneven":
        images = pool[_of_few_classes(data.labels[pool], rng)]
    return Pools({"image": images, "text": texts}, tested)


def _steep(labels: np.ndarray) -> dict[int, int]:
    """How many of each class may stay: the largest keeps all, classes ranked by their size."""
    names, counts = np.unique(labels, return_counts=True)
    ranked = names[np.argsort(-counts, kind="stable")].tolist()
    largest = int(counts.max())
    return {c: max(LEAST_OF_CLASS, round(largest / rank**STEEPNESS)) for rank, c in enumerate(ranked, start=1)}


def _within(labels: np.ndarray, most: Mapping[int, int], rng: np.random.Generator) -> np.ndarray:
    """(n,) bool, so many of each class at random."""
    kept = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels).tolist():
        kept[rng.permutation(np.flatnonzero(labels == label))[: most[label]]] = True
    return kept


def _of_few_classes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool, whole classes in a random order until there are enough; of the last one as many as are wanted."""
    wanted = round(PICTURED * len(labels))
    kept = np.zeros(len(labels), dtype=bool)
    for label in rng.permutation(np.unique(labels)):
        members = rng.permutation(np.flatnonzero(labels == label))
        kept[members[: wanted - int(kept.sum())]] = True
    return kept
