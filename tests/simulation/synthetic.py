"""A small labelled set of two modalities that both tell the class a little."""

from __future__ import annotations

import numpy as np

from backend.simulation.labelled_set import LabelledSet


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
        10,
        40,
    )
