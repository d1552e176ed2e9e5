"""What else a project may be like: a long tail, a modality half gone or half wrong, an annotator who errs.

Everything is drawn from the seed and the scenario's name, so all arms of a seed meet the same items.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.labelled_set import LabelledSet

SCENARIOS: Mapping[str, str] = {
    "plain": "as it is",
    "long_tail": "pool capped to n_max 50^(-rank / (C - 1)) items a class, 4 at least; natural test",
    "text_blank": "half of pool and test without text",
    "text_swapped": "half of pool and test with another item's text",
    "image_blank": "half of pool and test without image",
    "image_swapped": "half of pool and test with another item's image",
    "noisy": "10% of the pool answered wrongly; where a record may have several labels, with those of another record",
}
IMBALANCE = 50.0
LEAST_IN_TAIL = 4
DEGRADED = 0.5
WRONG = 0.1


@dataclass(frozen=True)
class Case:
    """A set as one seed sees it.

    features: modality -> (n, D_m); labels: (n,) or (n, C) truth; answers: what the annotator says; holdout: (n,)
    bool, scored on; left_out: (n,) bool, neither pool nor scored on.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    answers: np.ndarray
    holdout: np.ndarray
    left_out: np.ndarray


def make_case(data: LabelledSet, scenario: str, split: str, seed: int) -> Case:
    """Split the set and change it as the scenario says.

    Raises
    ------
    ReplayInvalid
        There is no such scenario, it degrades a modality that the set lacks, or it needs one label a record.
    """
    if scenario not in SCENARIOS:
        raise ReplayInvalid(f"scenario {scenario!r} does not exist; choose of {', '.join(SCENARIOS)}")
    holdout = data.split(split, seed)
    rng = np.random.default_rng([seed, zlib.crc32(scenario.encode())])
    features, answers, left_out = data.features, data.labels, np.zeros(len(data), dtype=bool)
    if scenario == "long_tail":
        if data.multi_label:
            raise ReplayInvalid(
                f"scenario 'long_tail' ranks items by their one class; items of {data.name!r} may have several labels"
            )
        left_out = _beyond_the_tail(data.labels, ~holdout, rng)
    elif scenario == "noisy":
        answers = _misread(data.labels, ~holdout, len(data.classes), rng)
    elif scenario != "plain":
        modality, _, how = scenario.partition("_")
        if modality not in features or len(features) < 2:
            raise ReplayInvalid(f"scenario {scenario!r} needs image and text; the set {data.name!r} lacks one")
        degraded = _degraded(features[modality], holdout, rng, swapped=how == "swapped")
        features = {**features, modality: degraded}
    return Case(features, data.labels, answers, holdout, left_out)


def _beyond_the_tail(labels: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool, the pool items above their class's cap; classes are ranked by their number in the pool."""
    counts = np.bincount(labels[pool])
    ranked = np.argsort(-counts, kind="stable")
    out = np.zeros(len(labels), dtype=bool)
    for rank, label in enumerate(ranked):
        cap = max(LEAST_IN_TAIL, round(counts.max() * IMBALANCE ** (-rank / max(len(counts) - 1, 1))))
        members = rng.permutation(np.flatnonzero(pool & (labels == label)))
        out[members[cap:]] = True
    return out


def _degraded(rows: np.ndarray, holdout: np.ndarray, rng: np.random.Generator, *, swapped: bool) -> np.ndarray:
    """Rows of which half, on either side of the split, are zero or those of another item of the same side."""
    out = np.array(rows)
    for side in (~holdout, holdout):
        members = rng.permutation(np.flatnonzero(side))
        hit = members[: round(DEGRADED * len(members))]
        # A cycle through a random order: nobody keeps their own, and nothing crosses the split.
        out[hit] = rows[np.roll(hit, 1)] if swapped else 0.0
    return out


def _misread(labels: np.ndarray, pool: np.ndarray, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of which a tenth of the pool's are another class, each other one equally likely; of several labels
    a record, those of another record of that tenth."""
    out = np.array(labels)
    members = rng.permutation(np.flatnonzero(pool))
    hit = members[: round(WRONG * len(members))]
    if labels.ndim == 2:
        out[hit] = labels[np.roll(hit, 1)]
        return out
    out[hit] = (labels[hit] + rng.integers(1, n_classes, len(hit))) % n_classes
    return out
