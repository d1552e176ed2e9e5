"""What sampling costs the default strategy above its exact threshold, in quality and in time.

    python benchmarks/auto_at_scale.py                       # a few minutes; JSON on stdout, tables on stderr
    python benchmarks/auto_at_scale.py --dataset openclipart16 --batch 20 --rounds 15 --samples 250 500 1000 --sizes

Quality: labelling is replayed on one pool with the exact form, with samples of several sizes (the threshold forced
down), and with random and margin sampling beside; AULC is the mean accuracy over the rounds by the trapezoid rule,
on records outside the pool, paired by seed. ``coverage`` is the part of the exact form's gain that the first warm
batch of the sampled form reaches, measured on the whole pool.
Time: one selection on float16 vectors on disk, in a process of its own, against the exact form where that fits.

A data set is one of ``backend.simulation.datasets``; it is downloaded and embedded where the cache lacks it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backend.learners import LateFusionHead
from backend.simulation.datasets import build_dataset, dataset_names, embed_dataset, load_dataset
from backend.simulation.splits import random_split
from backend.strategies import Pool, create_strategy
from backend.strategies.auto import Auto
from backend.strategies.kernels.predicted_view import PredictedView
from backend.strategies.kernels.uncertainty import mean_margin, rarity
from backend.strategies.kernels.views import CentredView, squared_euclidean

Features = dict[str, np.ndarray]


def synthetic(n: int, n_classes: int, width: int, seed: int) -> tuple[Features, np.ndarray]:
    """Long-tailed classes of four clusters each, seen by two modalities with independent noise; float16 unit rows."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, n_classes + 1) ** -0.7
    labels = rng.choice(n_classes, n, p=share / share.sum())
    cluster = rng.integers(0, 4, n)
    features = {}
    for modality in ("image", "text"):
        centre = rng.normal(size=(n_classes, 1, width)) + 0.7 * rng.normal(size=(n_classes, 4, width))
        rows = np.empty((n, width), dtype=np.float16)
        for begin in range(0, n, 20_000):
            part = slice(begin, min(begin + 20_000, n))
            block = centre[labels[part], cluster[part]] + 0.7
            block = block + 2.2 * rng.normal(size=block.shape)
            rows[part] = block / np.linalg.norm(block, axis=1, keepdims=True)
        features[modality] = rows
    return features, labels


Case = tuple[Features, np.ndarray, np.ndarray]


def synthetic_case(n: int, n_classes: int, width: int, seed: int) -> Case:
    """Features, labels and the quarter that is held out."""
    features, labels = synthetic(n, n_classes, width, seed)
    # A stream of its own: the synthetic labels are drawn from default_rng(seed).
    return features, labels, np.random.default_rng([seed, 1]).random(n) < 0.25


def dataset_case(name: str, cache: Path, seed: int) -> Case:
    """Features, labels and held-out quarter (stratified, equal texts on one side) of a real set."""
    pairs = load_dataset(build_dataset(name, cache))
    return embed_dataset(pairs, "packaged", cache), pairs.labels, random_split(pairs, seed)


# -- quality -----------------------------------------------------------------------------------------------------


def covered(pool: Pool, anchors: np.ndarray) -> float:
    """sum over the pool of U_i times the largest similarity to an anchor: what the default strategy maximises."""
    probabilities = pool.require_probabilities()
    weights = mean_margin(probabilities, multi_label=False)
    weights *= rarity(probabilities, pool.labels[pool.labelled], Auto().rarity)
    view = PredictedView(CentredView.of(pool.features), probabilities, Auto().prediction_weight)
    vectors = view.rows(anchors)
    total = 0.0
    for begin in range(0, len(pool), 4096):
        part = np.arange(begin, min(begin + 4096, len(pool)))
        nearest = squared_euclidean(view.rows(part), vectors).min(axis=1)
        total += float(weights[part] @ np.exp(-nearest / Auto().kernel_width))
    return total


def replay(
    features: Features, labels: np.ndarray, test: np.ndarray, arm: dict[str, Any], batch: int, rounds: int, seed: int
) -> tuple[list[float], float, Pool]:
    """(accuracy after each round, seconds selecting, pool of the second round) of one strategy."""
    n_classes = int(labels.max()) + 1
    train = ~test
    inside = {m: np.ascontiguousarray(z[train]) for m, z in features.items()}
    outside = {m: z[test] for m, z in features.items()}
    truth = labels[train]
    labelled = np.zeros(int(train.sum()), dtype=bool)
    options = {k: v for k, v in arm.items() if k != "name"}
    strategy = create_strategy(arm["name"], **options)
    head, curve, seconds, second = None, [], 0.0, None
    for number in range(rounds):
        known = np.where(labelled, truth, -1)
        pool = Pool.from_head(inside, known, labelled.copy(), head, n_classes=n_classes)
        second = pool if number == 1 else second
        began = time.perf_counter()
        picks = strategy.select(pool, batch, np.random.default_rng([seed, number])).indices
        seconds += time.perf_counter() - began
        labelled[picks] = True
        head = LateFusionHead.fit(
            inside, np.where(labelled, truth, -1), n_classes=n_classes, calibrate=False, warm_start=head
        )
        answer = head.probabilities(outside, calibrated=False).argmax(axis=1)
        curve.append(float((answer == labels[test]).mean()))
    assert second is not None
    return curve, seconds / rounds, second


def quality(
    load: Callable[[int], Case], sizes: list[int], seeds: int, batch: int, rounds: int
) -> list[dict[str, Any]]:
    """AULC of the sampled forms, of random and of margin, minus that of the exact form, paired by seed."""
    arms: dict[str, dict[str, Any]] = {"exact": {"name": "auto", "exact_below": 20_000}}
    arms |= {f"sample {size}": {"name": "auto", "exact_below": 0, "sample_rows": size} for size in sizes}
    arms |= {"margin": {"name": "margin"}, "random": {"name": "random"}}
    found: dict[str, list[tuple[float, float, float, float]]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        features, labels, test = load(seed)
        warm: Pool | None = None
        reach: dict[str, float] = {}
        for arm, spec in arms.items():
            curve, seconds, pool = replay(features, labels, test, spec, batch, rounds, seed)
            warm = warm or pool
            options = {k: v for k, v in spec.items() if k != "name"}
            picks = create_strategy(spec["name"], **options).select(warm, batch, np.random.default_rng(seed)).indices
            known = np.flatnonzero(warm.labelled)
            reach[arm] = covered(warm, np.concatenate([known, picks])) - covered(warm, known)
            aulc = float(np.trapezoid(curve) / (len(curve) - 1))
            found[arm].append((aulc, curve[-1], seconds, reach[arm] / reach["exact"]))
    exact = np.array(found["exact"])
    rows = []
    for arm, values in found.items():
        table = np.array(values)
        gap = 100 * (table[:, 0] - exact[:, 0])
        rows.append(
            {
                "arm": arm,
                "aulc": round(100 * float(table[:, 0].mean()), 2),
                "aulc_minus_exact": round(float(gap.mean()), 2),
                "standard_error": round(float(gap.std(ddof=1) / np.sqrt(seeds)), 2) if seeds > 1 else None,
                "final_accuracy": round(100 * float(table[:, 1].mean()), 2),
                "coverage": round(float(table[:, 3].mean()), 3),
                "seconds_a_selection": round(float(table[:, 2].mean()), 3),
            }
        )
    return rows


# -- time --------------------------------------------------------------------------------------------------------


def peak_megabytes() -> int:
    """Largest resident memory of this process so far, file pages included (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def timed(folder: str, n: int, arm: dict[str, Any], batch: int, answer: Any) -> None:
    """One selection on a pool read from disk; runs in a child process so that its memory is its own."""
    features = {m: np.load(Path(folder) / f"{m}.npy", mmap_mode="r")[:n] for m in ("image", "text")}
    labels = np.load(Path(folder) / "labels.npy")[:n]
    labelled = np.zeros(n, dtype=bool)
    labelled[np.random.default_rng(1).permutation(n)[:300]] = True
    n_classes = int(labels.max()) + 1
    known = np.where(labelled, labels, -1)
    head = LateFusionHead.fit(features, known, n_classes=n_classes, calibrate=False)
    began = time.perf_counter()
    pool = Pool.from_head(features, known, labelled, head, n_classes=n_classes)
    scored = time.perf_counter()
    before = peak_megabytes()
    options = {k: v for k, v in arm.items() if k != "name"}
    cpu = time.process_time()
    create_strategy(arm["name"], **options).select(pool, batch, np.random.default_rng(0))
    answer.put(
        {
            "score_pool_s": round(scored - began, 2),
            "select_s": round(time.perf_counter() - scored, 2),
            "select_cpu_s": round(time.process_time() - cpu, 2),
            "peak_before_mb": before,
            "peak_mb": peak_megabytes(),
        }
    )


def times(sizes: list[int], batch: int, n_classes: int, width: int) -> list[dict[str, Any]]:
    """Seconds and peak memory of one selection for each pool size."""
    rows = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        features, labels = synthetic(max(sizes), n_classes, width, seed=0)
        np.save(Path(folder) / "labels.npy", labels)
        for modality, matrix in features.items():
            np.save(Path(folder) / f"{modality}.npy", matrix)
        del features
        for n in sizes:
            arms = [("sampled", {"name": "auto", "exact_below": 0})]
            if n <= 10_000:
                arms.insert(0, ("exact", {"name": "auto"}))
            for form, arm in arms:
                answer = context.SimpleQueue()
                child = context.Process(target=timed, args=(folder, n, arm, batch, answer))
                child.start()
                child.join()
                if child.exitcode:
                    raise SystemExit(f"timing n={n} ({form}) ended with exit code {child.exitcode}")
                rows.append({"n": n, "form": form, **answer.get()})
    return rows


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """The rows as a Markdown table on stderr."""
    print(f"\n{title}\n| " + " | ".join(rows[0]) + " |", file=sys.stderr)
    print("|" + "---|" * len(rows[0]), file=sys.stderr)
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |", file=sys.stderr)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=dataset_names(), help="replay this set instead of synthetic vectors")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache"))
    parser.add_argument("--pool", type=int, default=8000, help="records of the synthetic replay, test part included")
    parser.add_argument("--samples", type=int, nargs="*", default=[500, 1000, 2000, 4000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 50_000, 200_000], help="pools to time")
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--width", type=int, default=512, help="numbers a modality in the timed pools")
    args = parser.parse_args()

    def load(seed: int) -> Case:
        if args.dataset:
            return dataset_case(args.dataset, args.cache_dir, seed)
        return synthetic_case(args.pool, args.classes, 96, seed)

    replayed = quality(load, args.samples, args.seeds, args.batch, args.rounds)
    print_table(f"Quality ({args.dataset or 'synthetic'}, {args.seeds} seeds, batch {args.batch})", replayed)
    timing = times(args.sizes, args.batch, args.classes, args.width) if args.sizes else []
    if timing:
        print_table("Time of one selection", timing)
    print(json.dumps({"settings": {k: str(v) for k, v in vars(args).items()}, "quality": replayed, "time": timing}))


if __name__ == "__main__":
    main()
