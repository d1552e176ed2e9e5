"""Reading labels: which rows train, and on what."""

from __future__ import annotations

import numpy as np

from backend.errors import FeaturesMismatch, LabelsInvalid


def read_targets(
    labels: np.ndarray, labelled: np.ndarray | None, n_classes: int, multi_label: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, targets, seen) of the labelled rows.

    rows: indices of the labelled rows; targets: for single-label the position of each row's class among the seen
    classes, for multi-label (len(rows), C) 0/1; seen: (C,) bool, classes with at least one (positive) label.
    """
    labels = np.asarray(labels)
    if n_classes < 1:
        raise LabelsInvalid(f"n_classes is {n_classes}; a head needs at least one class")
    wanted = (len(labels), n_classes) if multi_label else (len(labels),)
    if labels.shape != wanted:
        raise LabelsInvalid(
            f"labels have shape {labels.shape}, expected {wanted} (multi_label={multi_label}, n_classes={n_classes})"
        )
    if labels.size and (labels.max() > (1 if multi_label else n_classes - 1) or labels.min() < -1):
        raise LabelsInvalid(
            f"labels reach from {labels.min()} to {labels.max()}; use "
            + ("0, 1 or -1 (unlabelled row)" if multi_label else f"0..{n_classes - 1} or -1 (unlabelled)")
        )
    usable = (labels >= 0).all(axis=1) if multi_label else labels >= 0
    if labelled is not None:
        if np.shape(labelled) != (len(labels),):
            raise LabelsInvalid(f"labelled has shape {np.shape(labelled)}, expected ({len(labels)},)")
        usable = usable & np.asarray(labelled, dtype=bool)
    rows = np.flatnonzero(usable)
    seen = np.zeros(n_classes, dtype=bool)
    if multi_label:
        targets = labels[rows].astype(np.int64)
        seen |= targets.any(axis=0)
        return rows, targets, seen
    classes, targets = np.unique(labels[rows].astype(np.int64), return_inverse=True)
    seen[classes] = True
    return rows, targets.reshape(-1).astype(np.int64), seen


def training_block(matrix: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """These rows of one modality in float64; raises FeaturesMismatch for what is not finite."""
    block = np.asarray(matrix[rows], dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad):
        raise FeaturesMismatch(
            f"features[{name!r}] row {int(rows[bad[0]])} holds NaN or infinity; "
            "store a zero row for an absent modality"
        )
    return block
