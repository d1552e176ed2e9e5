"""Replays a labelled set as an active-learning project, without Label Studio: curves, areas, labels saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import ReplayInvalid
from backend.learners import LateFusionHead
from backend.simulation import holdout as scoring
from backend.simulation.pairs import Pairs
from backend.strategies import Pool, create_strategy

Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """How good the head was after each batch.

    Attributes
    ----------
    n_labels : (r,) labels spent
    accuracy, macro_f1 : (r,) on the held-out items; classes without a held-out item do not enter macro F1
    picks : (n_labels[-1],) items in the order they were labelled; empty for a mean of curves
    """

    n_labels: np.ndarray
    accuracy: np.ndarray
    macro_f1: np.ndarray
    picks: np.ndarray


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
) -> Curve:
    """Label ``budget`` items batch by batch in the strategy's order, with the truth as the annotator.

    Parameters
    ----------
    features
        Modality -> (n, D_m) unit rows of all items, zero row where absent.
    labels
        (n,) int64 true class of every item.
    holdout
        (n,) bool; these items are scored on, never labelled and never seen by the strategy.
    audit_share
        Part of every batch that is drawn uniformly before the strategy chooses; 0 replays the bare strategy.

    Raises
    ------
    ReplayInvalid
        The budget exceeds the pool, or a number makes no sense.
    UnknownStrategy, UnknownOption, InvalidOption, StrategyUnsuited
    """
    pool_rows = np.flatnonzero(~holdout)
    _check(len(pool_rows), int(holdout.sum()), batch_size, budget, audit_share)
    chosen = create_strategy(strategy, **(options or {}))
    chosen.check(multi_label=False, n_classes=len(classes), modalities=sorted(features))
    pool_features = {name: np.asarray(rows[pool_rows], np.float32) for name, rows in features.items()}
    test_features = {name: np.asarray(rows[holdout], np.float32) for name, rows in features.items()}
    truth = labels[pool_rows]
    labelled = np.zeros(len(pool_rows), dtype=bool)
    order: list[int] = []
    scores: list[tuple[int, float, float]] = []
    head: LateFusionHead | None = None
    while len(order) < budget:
        size = min(batch_size, budget - len(order))
        rng = np.random.default_rng([seed, len(order)])
        audited = rng.choice(np.flatnonzero(~labelled), round(audit_share * size), replace=False)
        kept = np.setdiff1d(np.arange(len(labelled)), audited)
        known = np.where(labelled, truth, -1)  # a strategy that peeks finds nothing
        pool = Pool.from_head(
            {name: rows[kept] for name, rows in pool_features.items()},
            known[kept],
            labelled[kept],
            head,
            n_classes=len(classes),
        )
        picks = [*kept[chosen.select(pool, size - len(audited), rng).indices], *audited]
        labelled[picks] = True
        order += picks
        head = LateFusionHead.fit(
            pool_features,
            np.where(labelled, truth, -1),
            n_classes=len(classes),
            calibrate=False,
            warm_start=head,
        )
        predicted = head.probabilities(test_features).argmax(axis=1)
        scores.append((len(order), *_score(labels[holdout], predicted)))
    counts, accuracy, f1 = (np.array(column) for column in zip(*scores, strict=True))
    return Curve(counts, accuracy, f1, pool_rows[order])


def aulc(curve: Curve) -> float:
    """Return the mean accuracy over the curve (trapezoid rule, first batch to last)."""
    span = float(curve.n_labels[-1] - curve.n_labels[0])
    if span == 0:
        return float(curve.accuracy[-1])
    return float(np.trapezoid(curve.accuracy, curve.n_labels)) / span


def labels_saved(curve: Curve, random_mean: Curve) -> float:
    """Return the share of the labels not needed to reach the final accuracy of random labelling.

    Both are mean curves over the same splits. 0 also stands for "never reached".
    """
    return scoring.labels_saved(curve.n_labels.tolist(), curve.accuracy, float(random_mean.accuracy[-1]))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the pointwise mean of curves over the same numbers of labels.

    Raises
    ------
    ReplayInvalid
        There is none, or they were taken at different numbers of labels.
    """
    if not curves or any(not np.array_equal(curve.n_labels, curves[0].n_labels) for curve in curves):
        raise ReplayInvalid("curves to be averaged must be at least one, of the same budget and batch size.")
    return Curve(
        curves[0].n_labels,
        np.mean([curve.accuracy for curve in curves], axis=0),
        np.mean([curve.macro_f1 for curve in curves], axis=0),
        np.empty(0, dtype=np.int64),
    )


def random_split(pairs: Pairs, seed: int) -> np.ndarray:
    """Return a (n,) bool mask that holds out a quarter: stratified, items with the same text on one side."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
    _, test = next(folds.split(np.zeros((len(pairs), 1)), pairs.labels, pairs.groups))
    mask = np.zeros(len(pairs), dtype=bool)
    mask[test] = True
    return mask


def _check(pool: int, held_out: int, batch_size: int, budget: int, audit_share: float) -> None:
    if held_out == 0:
        raise ReplayInvalid("holdout marks no item; hold some out, there is nothing to score on.")
    if batch_size < 1 or not 1 <= budget <= pool:
        raise ReplayInvalid(
            f"batch_size={batch_size}, budget={budget} with {pool} items in the pool; "
            "the batch must be at least 1 and the budget between 1 and the pool."
        )
    if not 0.0 <= audit_share <= 1.0:
        raise ReplayInvalid(f"audit_share={audit_share}; it is a part of the batch, between 0 and 1.")


def _score(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return accuracy, and F1 averaged over the classes that occur in the truth."""
    f1 = []
    for label in np.unique(truth):
        hits = float(((predicted == label) & (truth == label)).sum())
        f1.append(2 * hits / float((predicted == label).sum() + (truth == label).sum()))
    return float((predicted == truth).mean()), float(np.mean(f1))
