"""Grading image-text pairs from few labels: the alignment head beside the plain head on both vectors.

    python -m benchmarks.alignment                     # tux12 and fluent57, 3 seeds: minutes
    python -m benchmarks.alignment --seeds 10 openclipart16

A third of the pairs keep their caption (match), a third get one of another item of the same class (partly), a third
one of another class (mismatch). Near-equal captions lie on one side of the split; the warm start never saw the set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from backend.learners import LateFusionHead
from backend.learners.alignment import AlignmentHead
from backend.simulation.datasets import build_dataset
from backend.simulation.pairs import load_dataset
from backend.simulation.warm_start import pair_set, train_warm_start

Features = dict[str, np.ndarray]
MISMATCH, PARTLY, MATCH = range(3)
LABELS = (40, 100, 300)
TESTED = 3
BINS = 10


def graded(rows: np.ndarray, classes: np.ndarray, texts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 3): image row, text row and grade of each pair made of these rows; texts: numbers of equal captions."""
    made = []
    for row, grade in zip(rows, rng.integers(0, 3, len(rows)), strict=True):
        near = rows[(classes[rows] == classes[row]) & (texts[rows] != texts[row])]
        far = rows[classes[rows] != classes[row]]
        others = {PARTLY: near, MISMATCH: far, MATCH: np.array([row])}[int(grade)]
        made.append((row, rng.choice(others), grade) if len(others) else (row, row, MATCH))
    return np.array(made)


def expected_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error of the likeliest grade, ten bins (Guo et al., ICML 2017, equation 3)."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    number = np.minimum((sure * BINS).astype(int), BINS - 1)
    return sum(
        abs(float(sure[number == k].mean() - right[number == k].mean())) * float((number == k).mean())
        for k in np.unique(number)
    )


def measure(name: str, seed: int, cache: Path) -> dict[tuple[str, int], tuple[float, float, float]]:
    """(head, labels) -> accuracy, negative log-likelihood and calibration error of one split."""
    classes, found = load_dataset(build_dataset(name, cache)).labels, pair_set(name, cache)
    rng = np.random.default_rng(seed)
    held = np.isin(found.groups, rng.permutation(np.unique(found.groups))[: len(np.unique(found.groups)) // TESTED])
    pool, test = (graded(rng.permutation(np.flatnonzero(side)), classes, found.groups, rng) for side in (~held, held))
    seen, unseen = (
        {"image": found.features["image"][made[:, 0]], "text": found.features["text"][made[:, 1]]}
        for made in (pool, test)
    )
    start = train_warm_start(exclude=[name], cache_dir=cache)
    results = {}
    for n in LABELS:
        labels = np.where(np.arange(len(pool)) < n, pool[:, 2], -1)
        heads: dict[str, LateFusionHead | AlignmentHead] = {
            "vectors side by side": LateFusionHead.fit(seen, labels, n_classes=3, seed=seed),
            "warm start as it is": AlignmentHead.fit(seen, labels, n_classes=3, start=start, seed=seed),
            "trained on matches": AlignmentHead.fit(
                seen, labels, n_classes=3, start=start, matching=(MATCH,), seed=seed
            ),
        }
        for head, fitted in heads.items():
            p = fitted.probabilities(unseen)
            likelihood = float(-np.log(p[np.arange(len(p)), test[:, 2]] + 1e-9).mean())
            accuracy = float((p.argmax(axis=1) == test[:, 2]).mean())
            results[head, n] = (100 * accuracy, likelihood, 100 * expected_error(p, test[:, 2]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=["tux12", "fluent57"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where sets and vectors are kept")
    given = parser.parse_args()
    columns = " | ".join(f"{n} labels" for n in LABELS)
    print("Accuracy in percent / negative log-likelihood / calibration error in percent; guessing: 33 / 1.099\n")
    print(f"| set | head | {columns} |\n|---|---|{'---|' * len(LABELS)}")
    for name in given.datasets:
        runs = [measure(name, seed, given.cache) for seed in range(given.seeds)]
        for head in dict.fromkeys(head for head, _ in runs[0]):
            means = [np.mean([run[head, n] for run in runs], axis=0) for n in LABELS]
            print(
                f"| {name} | {head} | {' | '.join('{:.1f} / {:.3f} / {:.1f}'.format(*m) for m in means)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
