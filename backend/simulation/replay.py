"""Replays a labelled set as an active-learning project, without Label Studio: curves, areas, labels saved."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.errors import ReplayInvalid
from backend.learners import LateFusionHead
from backend.learners.growing import GrowingLabels
from backend.simulation import holdout as scoring
from backend.simulation.arms import Arm
from backend.simulation.scores import score, score_in_full, score_several
from backend.strategies import Pool

Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """How good the head was after each batch.

    Attributes
    ----------
    n_labels : (r,) labels spent
    accuracy, macro_f1 : (r,) on the held-out items; classes without a held-out item do not enter macro F1; where an
        item may have several labels, accuracy asks for all of them
    picks : (n_labels[-1],) items in the order they were labelled; empty for a mean of curves
    measures : name -> (r,) of everything else that was measured (``scores``), seconds_fit and seconds_select among
        it; NaN in rounds where it was not
    """

    n_labels: np.ndarray
    accuracy: np.ndarray
    macro_f1: np.ndarray
    picks: np.ndarray
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)


def replay(
    features: Features,
    labels: np.ndarray,
    classes: Sequence[str],
    holdout: np.ndarray,
    strategy: str,
    options: Mapping[str, Any] | None = None,
    *,
    batch_size: int,
    budget: int,
    seed: int,
    audit_share: float = 0.0,
    answers: np.ndarray | None = None,
    left_out: np.ndarray | None = None,
    full_every: int = 0,
) -> Curve:
    """Label ``budget`` items batch by batch in the strategy's order.

    Parameters
    ----------
    features
        Modality -> (n, D_m) unit rows of all items, zero row where absent.
    labels
        (n,) int64 true class of every item, or (n, C) 0/1 where an item may have several labels.
    holdout
        (n,) bool; these items are scored on, never labelled and never seen by the strategy.
    strategy
        Name, or ``cold>name``: the first batch by another strategy. ``options`` belong to the name.
    audit_share
        Part of every batch that is drawn uniformly (``backend.strategies.audit``).
    answers
        What the annotator says of every item, of the same shape; the truth if None.
    left_out
        (n,) bool; items that are neither in the pool nor scored on.
    full_every
        Every so many rounds, and after the last, temperature and unimodal heads are measured too; 0, or several
        labels: never.

    Raises
    ------
    ReplayInvalid
        The budget exceeds the pool, or a number makes no sense.
    UnknownStrategy, UnknownOption, InvalidOption, StrategyUnsuited
    """
    in_pool = ~holdout if left_out is None else ~(holdout | left_out)
    pool_rows = np.flatnonzero(in_pool)
    _check(len(pool_rows), int(holdout.sum()), batch_size, budget)
    arm = Arm.parse(strategy, options, audit_share)
    several = labels.ndim == 2
    arm.check(n_classes=len(classes), modalities=sorted(features), multi_label=several)
    cold, warm = arm.strategies()
    inside = {name: np.asarray(rows[pool_rows], np.float32) for name, rows in features.items()}
    outside = {name: np.asarray(rows[holdout], np.float32) for name, rows in features.items()}
    said = (labels if answers is None else answers)[pool_rows]
    learner = GrowingLabels(inside, len(classes), multi_label=several)
    known = np.full(said.shape, -1, dtype=said.dtype)  # a strategy that peeks finds nothing
    labelled = np.zeros(len(pool_rows), dtype=bool)
    order: list[int] = []
    rounds: list[dict[str, float]] = []
    head: LateFusionHead | None = None
    while len(order) < budget:
        began = time.perf_counter()
        size = min(batch_size, budget - len(order))
        rng = np.random.default_rng([seed, len(order)])
        # The same feature arrays every round, so that a strategy may know them again.
        pool = Pool.from_head(
            inside, known.copy(), labelled.copy(), head, n_classes=len(classes), multi_label=several
        )
        picks = (warm if order else cold).select(pool, size, rng).indices
        order += picks.tolist()
        known[picks], labelled[picks] = said[picks], True
        chosen = time.perf_counter()
        head = learner.fit(known)
        fitted = time.perf_counter()
        measured = (score_several if several else score)(head, outside, labels[holdout])
        if full_every and not several and (len(order) >= budget or (len(rounds) + 1) % full_every == 0):
            measured |= score_in_full(learner.calibrated(head, known), outside, labels[holdout])
        measured |= {"seconds_select": chosen - began, "seconds_fit": fitted - chosen, "n_labels": len(order)}
        rounds.append(measured)
    return _curve(rounds, pool_rows[order])


def _curve(rounds: Sequence[Mapping[str, float]], picks: np.ndarray) -> Curve:
    names = {name: None for measured in rounds for name in measured}
    columns = {name: np.array([measured.get(name, np.nan) for measured in rounds]) for name in names}
    counts, accuracy, f1 = (columns.pop(name) for name in ("n_labels", "accuracy", "macro_f1"))
    return Curve(counts.astype(np.int64), accuracy, f1, picks, columns)


def aulc(curve: Curve, measure: str = "accuracy") -> float:
    """Return the mean of accuracy or macro_f1 over the curve (trapezoid rule, first batch to last)."""
    return area(curve.n_labels, np.asarray(getattr(curve, measure)))


def area(n_labels: np.ndarray, values: np.ndarray) -> float:
    """Return the mean of a measure over labels spent (trapezoid rule, first batch to last)."""
    span = float(n_labels[-1] - n_labels[0])
    if span == 0:
        return float(values[-1])
    return float(np.trapezoid(values, n_labels)) / span


def labels_saved(curve: Curve, random_mean: Curve) -> float:
    """Return the share of the labels not needed to reach the final accuracy of random labelling.

    Both are mean curves over the same splits. 0 also stands for "never reached".
    """
    return scoring.labels_saved(curve.n_labels.tolist(), curve.accuracy, float(random_mean.accuracy[-1]))


def _check(pool: int, held_out: int, batch_size: int, budget: int) -> None:
    if held_out == 0:
        raise ReplayInvalid("holdout marks no item; hold some out, there is nothing to score on.")
    if batch_size < 1 or not 1 <= budget <= pool:
        raise ReplayInvalid(
            f"batch_size={batch_size}, budget={budget} with {pool} items in the pool; "
            "the batch must be at least 1 and the budget between 1 and the pool."
        )
