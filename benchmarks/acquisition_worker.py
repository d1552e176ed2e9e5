"""One acquisition by this project, or by a plain sequential loop, timed in a process of its own.

    python -m benchmarks.acquisition_worker ours badge FOLDER 1000

FOLDER as in ``benchmarks.peers_worker``; or with image.npy and text.npy (n, D_m), memory-mapped, in the place of
vectors.npy. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Strategies run in the worker process, which has torch for the encoder and then converts float16 with it.
import torch  # noqa: F401

from backend.strategies import Pool, create_strategy
from benchmarks.peers_worker import peak_megabytes


def linear_pool(folder: Path) -> Pool:
    """The pool of the case; on two modalities with a head, so that every strategy has what it needs."""
    labelled, labels = np.load(folder / "labelled.npy"), np.load(folder / "labels.npy")
    known = np.where(labelled, labels, -1)
    if not (folder / "vectors.npy").exists():
        from backend.learners import LateFusionHead

        features = {m: np.load(folder / f"{m}.npy", mmap_mode="r") for m in ("image", "text")}
        n_classes = int(labels.max()) + 1
        head = LateFusionHead.fit(features, known, n_classes=n_classes, calibrate=False)
        return Pool.from_head(features, known, labelled, head, n_classes=n_classes)
    probabilities = np.load(folder / "probabilities.npy")
    features = {"image": np.load(folder / "vectors.npy")}
    return Pool(features, labelled, known, probabilities.shape[1], probabilities=probabilities)


def ours(strategy: str, folder: Path, k: int) -> Callable[[], Any]:
    """``select`` of a registered strategy with its defaults."""
    pool = linear_pool(folder)
    return lambda: create_strategy(strategy).select(pool, k, np.random.default_rng(0)).indices


def sequential_badge(folder: Path, k: int) -> Callable[[], list[int]]:
    """BADGE with factored distances in float32 and one pass over the rows for each pick, as its authors do it."""
    probabilities, vectors = np.load(folder / "probabilities.npy"), np.load(folder / "vectors.npy")
    labelled = np.load(folder / "labelled.npy")

    def run() -> list[int]:
        rng = np.random.default_rng(0)
        free = np.flatnonzero(~labelled)
        right, left = vectors[free], probabilities[free].copy()
        left[np.arange(len(free)), left.argmax(axis=1)] -= 1.0
        norms = np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right)
        picks = [int(norms.argmax())]
        weights = np.full(len(free), np.inf, dtype=np.float32)
        for _ in range(k):
            last = picks[-1]
            product = (left @ left[last]) * (right @ right[last])
            np.minimum(weights, np.maximum(norms + norms[last] - 2.0 * product, 0.0), out=weights)
            weights[picks] = 0.0
            cdf = np.cumsum(weights, dtype=np.float64)
            picks.append(int(np.searchsorted(cdf, rng.random() * cdf[-1], side="right")))
        return free[picks[:k]].tolist()

    return run


def sequential_coreset(folder: Path, k: int) -> Callable[[], list[int]]:
    """k-center greedy in float32 with one matrix-vector product over the rows for each pick."""
    vectors, labelled = np.load(folder / "vectors.npy"), np.load(folder / "labelled.npy")

    def run() -> list[int]:
        free, known = np.flatnonzero(~labelled), vectors[labelled]
        rows = vectors[free]
        lengths = np.einsum("ij,ij->i", rows, rows)
        nearest = np.full(len(free), np.inf, dtype=np.float32)
        for begin in range(0, len(free), 8192):
            part = slice(begin, begin + 8192)
            product = rows[part] @ known.T
            nearest[part] = lengths[part] + ((known * known).sum(axis=1)[None, :] - 2.0 * product).min(axis=1)
        picks: list[int] = []
        for _ in range(k):
            picks.append(int(nearest.argmax()))
            np.minimum(nearest, lengths + lengths[picks[-1]] - 2.0 * (rows @ rows[picks[-1]]), out=nearest)
            nearest[picks] = -np.inf
        return free[picks].tolist()

    return run


def main() -> None:
    """Command line."""
    kind, strategy, folder, k = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    if kind == "ours":
        run = ours(strategy, folder, k)
    else:
        run = {"badge": sequential_badge, "coreset": sequential_coreset}[strategy](folder, k)
    before = peak_megabytes()
    began, cpu = time.perf_counter(), time.process_time()
    picks = run()
    found = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**found, "base_mb": before, "peak_mb": peak_megabytes(), "picks": len(set(map(int, picks)))}))


if __name__ == "__main__":
    main()
