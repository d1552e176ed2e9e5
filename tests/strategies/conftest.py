"""Pools for the strategy tests: synthetic classes in two modalities, with a head trained on the labelled rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from backend.learners import LateFusionHead
from backend.strategies import Pool

# A busy machine must not fail an example for being slow.
settings.register_profile("arrays", deadline=None, max_examples=60)
settings.load_profile("arrays")

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads one file of outputs of the BMMAL authors' code (commit 5c226cf)."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"bmmal_{name}.npz") as archive:
            return dict(archive)

    return load


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay zero."""
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.where(length > 0, length, 1.0)).astype(np.float32)


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., Pool]:
    """Builds a pool of ``n`` records, ``n_labelled`` of them labelled, in ``n_classes`` clusters."""

    def build(
        n: int = 120,
        n_classes: int = 5,
        n_labelled: int = 20,
        *,
        multi_label: bool = False,
        modalities: tuple[str, ...] = ("image", "text"),
        change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda features: features,
        relabel: Callable[[np.ndarray], np.ndarray] = lambda labels: labels,
        seed: int = 0,
    ) -> Pool:
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, n_classes, n)
        features = change(
            {m: unit_rows(rng.normal(size=(n_classes, 12))[classes] + rng.normal(size=(n, 12))) for m in modalities}
        )
        labelled = np.zeros(n, dtype=bool)
        labelled[rng.permutation(n)[:n_labelled]] = True
        if multi_label:
            labels = (np.eye(n_classes)[classes] + (rng.random((n, n_classes)) < 0.2) > 0).astype(np.int8)
            labels[~labelled] = -1
        else:
            labels = np.where(labelled, classes, -1)
        labels = relabel(labels)
        head = None
        if n_labelled:
            head = LateFusionHead.fit(features, labels, n_classes=n_classes, multi_label=multi_label, calibrate=False)
        return Pool.from_head(features, labels, labelled, head, n_classes=n_classes, multi_label=multi_label)

    return build
