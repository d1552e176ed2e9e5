"""Step 4: the strategy picks the batch, a control sample is mixed in, the rest of the queue ranks behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.learners import LateFusionHead
from backend.rounds.fitting import RoundArrays
from backend.rounds.options import ProjectOptions
from backend.rounds.reasons import reason_of
from backend.strategies import Pool, Selection, create_strategy


@dataclass(frozen=True)
class Place:
    """One place of a queue."""

    task_id: int
    role: str
    reason: str
    figures: dict[str, float]


def choose_queue(
    arrays: RoundArrays,
    head: LateFusionHead | None,
    options: ProjectOptions,
    n_classes: int,
    multi_label: bool,
    seed: int,
) -> list[Place]:
    """The queue in the order it is to be served: batch with control sample, then reserve.

    The control sample is a uniform draw from the whole pool, made before the strategy chooses, so that what is
    estimated from its labels holds for the pool. It is spread over random positions of the batch.
    """
    rng = np.random.default_rng(seed)
    unlabelled = np.flatnonzero(~arrays.labelled)
    size = min(options.batch_size, len(unlabelled))
    if size == 0:
        return []
    controls = _draw_controls(unlabelled, size, options.audit_share, rng)
    pool = _pool_without(arrays, head, controls, n_classes, multi_label)
    strategy = create_strategy(options.strategy, **options.strategy_options)
    kept = np.setdiff1d(np.arange(len(arrays.task_ids)), controls, assume_unique=True)
    selection = strategy.select(pool, size - len(controls), rng)
    picks = [
        (int(kept[index]), "batch", _figures(selection, position)) for position, index in enumerate(selection.indices)
    ]
    for index in controls:
        picks.insert(int(rng.integers(0, len(picks) + 1)), (int(index), "control", {}))
    ranked = selection.queue(pool.labelled, options.queue_length - len(controls))
    picks += [
        (int(kept[index]), "reserve", {"utility": round(float(selection.utilities[index]), 6)})
        for index in ranked[len(selection.indices) :]
    ]
    return [
        Place(int(arrays.task_ids[index]), role, reason_of(role, options.strategy, figures), figures)
        for index, role, figures in picks
    ]


def _draw_controls(
    unlabelled: NDArray[np.intp], size: int, share: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    # At least one task is left to the strategy; a share of a small batch is rounded at random, so that the
    # share holds over many rounds.
    wanted = share * size
    count = min(int(wanted) + int(rng.random() < wanted % 1), size - 1)
    return rng.choice(unlabelled, count, replace=False)


def _pool_without(
    arrays: RoundArrays,
    head: LateFusionHead | None,
    left_out: NDArray[np.intp],
    n_classes: int,
    multi_label: bool,
) -> Pool:
    keep = np.ones(len(arrays.task_ids), bool)
    keep[left_out] = False
    features = {m: x[keep] for m, x in arrays.features.items()}
    labels, labelled = arrays.labels[keep], arrays.labelled[keep]
    return Pool.from_head(features, labels, labelled, head, n_classes=n_classes, multi_label=multi_label)


def _figures(selection: Selection, position: int) -> dict[str, float]:
    figures = {}
    for name, values in selection.parts.items():
        value = float(values[position])
        if np.isfinite(value):
            figures[name] = round(value, 6)
    return figures
