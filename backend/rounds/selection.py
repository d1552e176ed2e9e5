"""Step 4: the strategy picks the batch, a control sample is mixed in, the rest of the queue ranks behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    estimated from its labels holds for the pool; see `backend.strategies.audit`.
    """
    if arrays.labelled.all():
        return []
    pool = Pool.from_head(
        arrays.features,
        arrays.labels,
        arrays.labelled,
        head,
        n_classes=n_classes,
        multi_label=multi_label,
    )
    strategy = create_strategy(
        options.strategy,
        balance=options.balance,
        audit_share=options.audit_share,
        **options.strategy_options,
    )
    selection = strategy.select(pool, options.batch_size, np.random.default_rng(seed))
    drawn = selection.parts.get("control", np.zeros(len(selection.indices)))
    picks = [
        (int(index), "control", {}) if drawn[position] else (int(index), "batch", _figures(selection, position))
        for position, index in enumerate(selection.indices)
    ]
    ranked = selection.queue(pool.labelled, options.queue_length)
    picks += [
        (int(index), "reserve", {"utility": round(float(selection.utilities[index]), 6)})
        for index in ranked[len(picks) :]
    ]
    named = strategy.reason_in(pool)
    return [
        Place(int(arrays.task_ids[index]), role, reason_of(role, named, figures, has_model=head is not None), figures)
        for index, role, figures in picks
    ]


def _figures(selection: Selection, position: int) -> dict[str, float]:
    figures = {}
    for name, values in selection.parts.items():
        value = float(values[position])
        if np.isfinite(value):
            figures[name] = round(value, 6)
    return figures
