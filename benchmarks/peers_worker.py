"""One acquisition by another library, timed; runs in .venv-peers and imports nothing of this project.

    .venv-peers/bin/python benchmarks/peers_worker.py scikit-activeml coreset FOLDER 1000

FOLDER holds vectors.npy (n, D) float32, probabilities.npy (n, C) float32, labels.npy (n,) and labelled.npy (n,) bool.
Prints one JSON line: wall and CPU seconds of the acquisition alone, and the peak memory of this process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def load(folder: Path) -> Arrays:
    """The arrays of the case, in memory as these libraries want them."""
    return {name: np.load(folder / f"{name}.npy") for name in ("vectors", "probabilities", "labels", "labelled")}


def scikit_activeml(strategy: str, arrays: Arrays, k: int) -> Callable[[], Any]:
    """The query of ``skactiveml.pool``, with probabilities computed beforehand."""
    from skactiveml import pool
    from skactiveml.base import SkactivemlClassifier

    class Known(SkactivemlClassifier):
        """Answers with the probabilities of the case: prediction is not what is timed."""

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            return self

        def predict_proba(self, X: Any) -> np.ndarray:
            return arrays["probabilities"][~arrays["labelled"]]

    labels = np.where(arrays["labelled"], arrays["labels"], np.nan).astype(float)
    common = {"X": arrays["vectors"], "y": labels, "batch_size": k}
    if strategy == "badge":
        clf = Known(classes=list(range(arrays["probabilities"].shape[1])))
        return lambda: pool.Badge(random_state=0).query(**common, clf=clf, fit_clf=False)
    kind = {"coreset": pool.CoreSet, "typiclust": pool.TypiClust, "maxherding": pool.MaxHerding}[strategy]
    return lambda: kind(random_state=0).query(**common)


def small_text(strategy: str, arrays: Arrays, k: int) -> Callable[[], Any]:
    """The functions of small-text that do the work, with embeddings and probabilities computed beforehand."""
    free, known = np.flatnonzero(~arrays["labelled"]), np.flatnonzero(arrays["labelled"])
    if strategy == "coreset":
        from small_text.query_strategies.coresets import greedy_coreset

        return lambda: greedy_coreset(arrays["vectors"], free, known, k, distance_metric="euclidean", normalized=True)
    from small_text.integrations.pytorch.query_strategies.strategies import BADGE

    badge = BADGE(arrays["probabilities"].shape[1])
    return lambda: badge.sample(
        None, None, free, known, None, k, arrays["vectors"], embeddings_proba=arrays["probabilities"]
    )


def peak_megabytes() -> int:
    """Largest resident memory of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Command line."""
    library, strategy, folder, k = sys.argv[1:]
    build = {"scikit-activeml": scikit_activeml, "small-text": small_text}[library]
    run = build(strategy, load(Path(folder)), int(k))
    before = peak_megabytes()
    began, cpu = time.perf_counter(), time.process_time()
    picks = run()
    found = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**found, "base_mb": before, "peak_mb": peak_megabytes(), "picks": len(set(map(int, picks)))}))


if __name__ == "__main__":
    main()
