"""Whether the estimate from the control sample says what is true: how often its interval covers the truth.

    python -m benchmarks.control_sample                          # demo and tux12, 20 seeds: some ten minutes
    python -m benchmarks.control_sample demo --seeds 5 --strategies auto

Labelled sets are labelled batch by batch as a project would be, with the control share of a project. What the head of
each round is worth on all tasks that wait is known here. After each round the estimate is compared with the mean of
that over the heads it pools (this is what it estimates: an interval of 95% should cover it so often) and with that of
the newest of them, behind which it lags. Estimates of one replay share answers, replays do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from backend.blas_threads import one_thread_if
from backend.learners import LateFusionHead
from backend.learners.growing import GrowingLabels
from backend.rounds.accuracy import Estimate, accuracy_curve
from backend.simulation.labelled_set import LabelledSet, named_set
from backend.store.control_sample import ControlRound
from backend.strategies import Pool, create_strategy

Replay = tuple[list[ControlRound], list[float]]


def replay(data: LabelledSet, strategy: str, batch: int, share: float, budget: int, seed: int) -> Replay:
    """The control answers of each round, and the true accuracy of its head on all that waited when it drew them."""
    learner = GrowingLabels(data.features, len(data.classes), multi_label=data.multi_label)
    chooser = create_strategy(strategy, audit_share=share)
    known = np.full_like(data.labels, -1)
    labelled = np.zeros(len(data), dtype=bool)
    head: LateFusionHead | None = None
    rounds: list[ControlRound] = []
    truths: list[float] = []
    while labelled.sum() < min(budget, len(data) - batch):
        pool = Pool.from_head(
            data.features,
            known.copy(),
            labelled.copy(),
            head,
            n_classes=len(data.classes),
            multi_label=data.multi_label,
        )
        chosen = chooser.select(pool, batch, np.random.default_rng([seed, int(labelled.sum())]))
        drawn = chosen.indices[chosen.parts["control"] > 0]
        if head is not None:
            right = _right(head.probabilities(data.features), data.labels)
            number = len(rounds) + 2
            rounds.append(
                ControlRound(number, f"v{number}", int(labelled.sum()), len(drawn), int(right[drawn].sum()), False)
            )
            truths.append(float(right[~labelled].mean()))
        known[chosen.indices], labelled[chosen.indices] = data.labels[chosen.indices], True
        head = learner.fit(known)
    return rounds, truths


def _right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2:
        return ((probabilities >= 0.5) == (labels > 0)).all(axis=1)
    return probabilities.argmax(axis=1) == labels


def compare(found: Replay) -> list[tuple[Estimate, float, float]]:
    """Each estimate of the curve, the true accuracy of its heads on average, and that of the newest."""
    rounds, truths = found
    compared = []
    for one in accuracy_curve(rounds):
        pooled = [(r.answers, t) for r, t in zip(rounds, truths, strict=True) if one.since <= r.number <= one.until]
        weights, accuracies = np.array(pooled).T
        compared.append((one, float(weights @ accuracies / weights.sum()), float(accuracies[-1])))
    return compared


def row(name: str, compared: Sequence[tuple[Estimate, float, float]]) -> str:
    """A line of the table."""
    low, high, said, heads, newest = np.array([(e.low, e.high, e.accuracy, h, n) for e, h, n in compared]).T
    covers, covers_newest = ((low <= t) & (t <= high) for t in (heads, newest))
    return (
        f"| {name} | {len(compared)} | {covers.mean():.1%} | {100 * (said - heads).mean():+.1f}"
        f" | {covers_newest.mean():.1%} | {100 * (said - newest).mean():+.1f} | {50 * (high - low).mean():.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["demo", "tux12"])
    parser.add_argument("--strategies", nargs="+", default=["auto", "random"])
    parser.add_argument("--batches", nargs="+", type=int, default=[10, 40])
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    print("| set, strategy, batch | estimates | covers its heads | off by | covers the newest | off by | +- |")
    print("|---|---|---|---|---|---|---|")
    with one_thread_if(True), ProcessPoolExecutor(given.jobs) as pool:
        for name in given.sets:
            data = named_set(name, Path(".cache"), "packaged")
            for strategy in given.strategies:
                for batch in given.batches:
                    run = partial(replay, data, strategy, batch, given.share, given.labels)
                    compared = [one for found in pool.map(run, range(given.seeds)) for one in compare(found)]
                    print(row(f"{name}, {strategy}, {batch}", compared), flush=True)


if __name__ == "__main__":
    main()
