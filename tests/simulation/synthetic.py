"""A small labelled set of two modalities that both tell the class a little."""

from __future__ import annotations

import numpy as np

from backend.simulation.labelled_set import LabelledSet


def tagged_set(n: int = 200, n_labels: int = 5, seed: int = 0, name: str = "tagged") -> LabelledSet:
    """A record has each label or not, a quarter of them on average, and both modalities tell a little."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_labels)) < 0.25).astype(np.int8)
    features = {}
    for modality, width in (("image", 12), ("text", 8)):
        rows = labels @ rng.normal(size=(n_labels, width)) + rng.normal(size=(n, width))
        features[modality] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    groups = {"random": np.arange(n), "grouped": np.arange(n) // 2}
    return LabelledSet(
        name, features, labels, [f"label {c}" for c in range(n_labels)], groups, batch_size=10, budget=40
    )


def small_set(n: int = 160, n_classes: int = 4, seed: int = 0, name: str = "small") -> LabelledSet:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    features = {}
    for modality, width in (("image", 12), ("text", 8)):
        rows = rng.normal(size=(n_classes, width))[labels] + rng.normal(size=(n, width))
        features[modality] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return LabelledSet(
        name,
        features,
        labels.astype(np.int64),
        [f"class {c}" for c in range(n_classes)],
        {"random": np.arange(n), "grouped": np.arange(n) // 2 * 2 + labels % 2},
        batch_size=10,
        budget=40,
    )
