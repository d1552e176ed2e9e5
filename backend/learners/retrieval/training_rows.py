"""The labelled pairs that a retrieval model trains on, and which of their halves are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.errors import FeaturesMismatch, LabelsInvalid
from backend.learners.targets import read_targets, training_block


@dataclass(frozen=True)
class TrainingRows:
    """names: modalities in the order of their names; labels: (n, C) float64 0/1; blocks: modality -> (n, D_m)
    float64; present: modality -> (n,) bool, rows that are not zero."""

    names: tuple[str, ...]
    labels: np.ndarray
    blocks: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, features: Mapping[str, np.ndarray], labels: np.ndarray, labelled: np.ndarray | None) -> TrainingRows:
        """The labelled rows of a pool: labels (n, C) 0/1, a row with a negative entry is unlabelled.

        Raises LabelsInvalid and FeaturesMismatch.
        """
        labels = np.asarray(labels)
        if labels.ndim != 2:
            raise LabelsInvalid(f"labels have shape {labels.shape}; a retrieval model needs (n, C) 0/1")
        if not features:
            raise FeaturesMismatch("features is empty; pass one (n, D) matrix per modality")
        for name, matrix in features.items():
            if matrix.ndim != 2 or len(matrix) != len(labels):
                raise FeaturesMismatch(
                    f"features[{name!r}] has shape {matrix.shape}, labels have {len(labels)} rows; "
                    "give one row per record"
                )
        rows, targets, _ = read_targets(labels, labelled, labels.shape[1], multi_label=True)
        names = tuple(sorted(features))
        blocks = {name: training_block(features[name], rows, name) for name in names}
        return cls(
            names, targets.astype(np.float64), blocks, {m: np.any(block, axis=1) for m, block in blocks.items()}
        )

    @property
    def n_classes(self) -> int:
        """Number of classes, seen or not."""
        return self.labels.shape[1]

    @property
    def complete(self) -> np.ndarray:
        """(n,) bool, rows that have every modality."""
        return np.logical_and.reduce([self.present[name] for name in self.names])

    def pairs(self) -> dict[str, np.ndarray]:
        """The blocks of the complete rows."""
        return {name: self.blocks[name][self.complete] for name in self.names}


def all_pairs(features: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """modality -> (p, D_m) float64 complete rows of a pool, labelled or not; ``most`` drawn where it has more.

    The draw depends on the number of rows alone: every round of a project computes its pair space from the same.

    Raises FeaturesMismatch.
    """
    names = sorted(features)
    count = len(features[names[0]])
    drawn = (
        np.arange(count)
        if count <= most
        else np.sort(np.random.default_rng(count).choice(count, most, replace=False))
    )
    blocks = {name: training_block(features[name], drawn, name) for name in names}
    complete = np.logical_and.reduce([np.any(block, axis=1) for block in blocks.values()])
    return {name: block[complete] for name, block in blocks.items()}
