"""How many labels a strategy saves against random labelling, on real image-text sets.

    python -m benchmarks.label_efficiency                        # demo set, 3 seeds
    python -m benchmarks.label_efficiency --datasets demo tux12 openclipart16 --seeds 8
    python -m benchmarks.label_efficiency --json results.json

Every seed draws a new split (three quarters pool, one quarter scored on; equal texts on one side), shared by all
strategies. AULC is the mean accuracy over the curve; its difference to random is paired by seed, with standard
error. Labels saved: 1 - n / budget, where the strategy's mean curve first reaches random's final accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend.simulation.datasets import build_dataset, dataset_names
from backend.simulation.pairs import Pairs, embed_dataset, load_dataset
from backend.simulation.replay import Curve, aulc, labels_saved, mean_curve, random_split, replay

DEMO = Path(__file__).resolve().parent.parent / "tasks_templates" / "image_text_classification" / "demo"
STRATEGIES = ("auto", "badge", "bmmal", "margin")
# Batch and budget of each set, as in the label-efficiency protocol; the demo's are of the same size.
PLANS = {"demo": (20, 200), "tux12": (10, 200), "openclipart16": (20, 300), "fluent57": (20, 300)}


@dataclass(frozen=True)
class Row:
    """One strategy on one data set; accuracies and differences in percent."""

    dataset: str
    strategy: str
    seeds: int
    aulc: float
    aulc_minus_random: float
    standard_error: float
    ahead_of_random: int
    final_accuracy: float
    final_macro_f1: float
    labels_saved: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["demo"], choices=["demo", *dataset_names()])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default=os.environ.get("MMAL_ENCODER", "packaged"))
    parser.add_argument("--audit-share", type=float, default=0.0, help="part of each batch drawn uniformly")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where sets and vectors are kept")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()

    rows: list[Row] = []
    for name in arguments.datasets:
        pairs = load_dataset(DEMO if name == "demo" else build_dataset(name, arguments.cache))
        features = embed_dataset(pairs, arguments.encoder, arguments.cache)
        rows += compare(name, pairs, features, arguments.strategies, arguments.seeds, arguments.audit_share)
    text = json.dumps([asdict(row) for row in rows], indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(table(rows))


def compare(
    name: str,
    pairs: Pairs,
    features: Mapping[str, np.ndarray],
    strategies: Sequence[str],
    seeds: int,
    audit_share: float = 0.0,
) -> list[Row]:
    """Replay each strategy and random on the same splits; random comes first."""
    batch_size, budget = PLANS[name]
    arms = ["random", *(arm for arm in strategies if arm != "random")]
    curves: dict[str, list[Curve]] = {arm: [] for arm in arms}
    with tqdm(total=seeds * len(arms), desc=name, disable=None) as progress:
        for seed in range(seeds):
            holdout = random_split(pairs, seed)
            for arm in arms:
                curve = replay(
                    features,
                    pairs.labels,
                    pairs.classes,
                    holdout,
                    arm,
                    batch_size=batch_size,
                    budget=budget,
                    seed=seed,
                    audit_share=audit_share,
                )
                curves[arm].append(curve)
                progress.update()
    return [_row(name, arm, curves[arm], curves["random"]) for arm in arms]


def table(rows: Sequence[Row]) -> str:
    """Return the results as a text table."""
    lines = [
        "| data set | strategy | AULC | minus random | ahead | final acc. | final F1 | labels saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        difference = f"{row.aulc_minus_random:+.1f} ± {row.standard_error:.1f}"
        lines.append(
            f"| {row.dataset} | {row.strategy} | {row.aulc:.1f} | {difference} | {row.ahead_of_random}/{row.seeds} "
            f"| {row.final_accuracy:.1f} | {row.final_macro_f1:.1f} | {row.labels_saved:.0f}% |"
        )
    return "\n".join(lines)


def _row(dataset: str, strategy: str, curves: Sequence[Curve], random: Sequence[Curve]) -> Row:
    difference = 100 * np.array([aulc(own) - aulc(other) for own, other in zip(curves, random, strict=True)])
    mean = mean_curve(curves)
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    return Row(
        dataset=dataset,
        strategy=strategy,
        seeds=len(curves),
        aulc=round(100 * aulc(mean), 2),
        aulc_minus_random=round(float(difference.mean()), 2),
        standard_error=round(error, 2),
        ahead_of_random=int((difference > 0).sum()),
        final_accuracy=round(100 * float(mean.accuracy[-1]), 2),
        final_macro_f1=round(100 * float(mean.macro_f1[-1]), 2),
        labels_saved=round(100 * labels_saved(mean, mean_curve(random)), 1),
    )


if __name__ == "__main__":
    main()
