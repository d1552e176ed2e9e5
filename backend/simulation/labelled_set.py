"""A labelled set as the harness sees it: arrays, label names, and which items give each other away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.datasets import build_dataset
from backend.simulation.pairs import embed_dataset, load_dataset
from backend.simulation.replay_set import ReplaySet
from backend.simulation.splits import FOLDS, near_duplicates, strata, stratified_split

DEMO = Path(__file__).resolve().parents[2] / "tasks_templates" / "image_text_classification" / "demo"
# Batch and budget of each named set (label_efficiency.md, protocol); the demo's are of the same size.
PLANS = {"demo": (20, 200), "tux12": (10, 200), "openclipart16": (20, 300), "fluent57": (20, 300)}
# Below these, a set is refused or its user warned.
LEAST_PER_CLASS = FOLDS
LEAST_LABELS = 40
FEW_LABELS = 300


@dataclass(frozen=True)
class LabelledSet(ReplaySet):
    """Items of known labels.

    Attributes
    ----------
    labels : (n,) int64 index into ``classes``, or (n, C) int8 0/1 where a record may have several
    groups : split ("random", "grouped") -> (n,) int64; equal for items that must lie on one side
    """

    labels: np.ndarray
    classes: Sequence[str]
    groups: Mapping[str, np.ndarray]
    _splits: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Whether a record may have several labels."""
        return self.labels.ndim == 2

    def _arrays(self) -> Iterable[np.ndarray]:
        return [self.labels, *(self.groups[kind] for kind in sorted(self.groups)), *self._feature_arrays()]

    def _own_facts(self) -> Mapping[str, object]:
        return {"classes": len(self.classes)}

    def split(self, kind: str, seed: int) -> np.ndarray:
        """(n,) bool, the quarter that is scored on."""
        known = self._splits.get((kind, seed))
        if known is None:
            # Takes longer than many a replay, and all scenarios and arms of a seed share it.
            known = self._splits[kind, seed] = stratified_split(strata(self.labels), self.groups[kind], seed)
        return known


def named_set(name: str, cache_dir: Path, encoder: str) -> LabelledSet:
    """A benchmark set, downloaded and embedded where the cache lacks it.

    Raises
    ------
    UnknownDataset, DataSourceUnavailable, DatasetInvalid, EncoderError
    """
    pairs = load_dataset(DEMO if name == "demo" else build_dataset(name, cache_dir))
    batch_size, budget = PLANS[name]
    return LabelledSet(
        name,
        embed_dataset(pairs, encoder, cache_dir),
        pairs.labels,
        pairs.classes,
        {"random": pairs.groups, "grouped": near_duplicates(pairs.texts)},
        batch_size=batch_size,
        budget=budget,
    )


def own_set(
    name: str,
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    groups: Mapping[str, np.ndarray],
    notes: Sequence[str] = (),
) -> LabelledSet:
    """Labels that somebody collected: classes too small to split are left out, batch and budget follow from the size.

    labels: (n,) or (n, C) as a ``LabelledSet`` has them; with several a record, a small class is left out and the
    records that have it stay.

    Raises
    ------
    ReplayInvalid
        What is left is too little to hold a quarter out.
    """
    multi_label = labels.ndim == 2
    counts = labels.sum(axis=0) if multi_label else np.bincount(labels, minlength=len(classes))
    small = [classes[c] for c in np.flatnonzero((counts > 0) & (counts < LEAST_PER_CLASS))]
    used = np.flatnonzero(counts >= LEAST_PER_CLASS)
    rows = np.arange(len(labels)) if multi_label else np.flatnonzero(np.isin(labels, used))
    if len(rows) < LEAST_LABELS or len(used) < 2:
        raise ReplayInvalid(
            f"{name} has {len(rows)} labelled items in {len(used)} classes of at least {LEAST_PER_CLASS};"
            f" label at least {LEAST_LABELS} in two classes before asking which strategy would have served best."
        )
    told = list(notes)
    if small:
        told.append(f"Left out, fewer than {LEAST_PER_CLASS} labels each: {', '.join(small)}.")
    if len(rows) < FEW_LABELS:
        told.append(
            f"Only {len(rows)} labelled items, {len(rows) // FOLDS} of them to score on: take differences below a few"
            " points for noise, and ask again with more labels."
        )
    pool = len(rows) * (FOLDS - 1) // FOLDS
    batch_size = max(5, min(20, pool // 15))
    return LabelledSet(
        name,
        {m: np.asarray(x[rows], np.float32) for m, x in features.items()},
        labels[:, used].astype(np.int8) if multi_label else np.searchsorted(used, labels[rows]).astype(np.int64),
        [classes[c] for c in used],
        {kind: group[rows] for kind, group in groups.items()},
        batch_size=batch_size,
        # Later, every strategy has labelled the same items.
        budget=max(2 * batch_size, min(300, pool // 2 // batch_size * batch_size)),
        notes=tuple(told),
    )


def with_plan(data: LabelledSet, batch_size: int | None, budget: int | None) -> LabelledSet:
    """The set with another batch or budget, where given."""
    return replace(data, batch_size=batch_size or data.batch_size, budget=budget or data.budget)
