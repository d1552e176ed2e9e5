"""Two pools in clusters with a hidden pairing, for the tests of pair strategies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.strategies import Pairs

GOLDEN = Path(__file__).parents[2] / "golden"


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def make_pairs() -> Callable[..., Pairs]:
    """Builds pools of ``n`` images and ``m`` texts; image i and text i belong together, the first ``known`` are
    paired. change: takes and returns the arguments of ``Pairs``."""

    def build(
        n: int = 60,
        m: int = 50,
        known: int = 8,
        *,
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda arguments: arguments,
        seed: int = 0,
    ) -> Pairs:
        rng = np.random.default_rng(seed)
        clusters = rng.normal(size=(7, 6))
        latent = clusters[rng.integers(0, 7, max(n, m))] + rng.normal(size=(max(n, m), 6))
        sizes = {"image": n, "text": m}
        features = {name: unit(latent[:k] @ rng.normal(size=(6, 10 + k % 3))) for name, k in sizes.items()}
        joint = {name: unit(latent[:k] + 0.4 * rng.normal(size=(k, 6))) for name, k in sizes.items()}
        pairs = np.stack([np.arange(known), np.arange(known)], axis=1)
        askable = {name: np.ones(k, dtype=bool) for name, k in sizes.items()}
        return Pairs(**change({"features": features, "joint": joint, "known": pairs, "askable": askable}))

    return build
