"""Temperature from out-of-fold logits (Guo et al., ICML 2017, section 4.2, fitted on held-out folds)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize_scalar

from backend.learners.logistic import Span, cross_entropy, fit_weights

FOLDS = 3
# With fewer scored rows than this a temperature is noise: the head keeps 1.
FEWEST_ROWS = 12
COLDEST, HOTTEST = 0.05, 20.0


def stratified_folds(targets: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold number of each row; every class is dealt round-robin, so folds differ by at most one row a class."""
    fold = np.empty(len(targets), dtype=np.int64)
    order = rng.permutation(len(targets))
    if targets.ndim == 1:
        order = order[np.argsort(targets[order], kind="stable")]
    fold[order] = np.arange(len(targets)) % folds
    return fold


def _held_out_logits(
    span: Span,
    targets: np.ndarray,
    n_outputs: int,
    inverse_regularization: float,
    multi_label: bool,
    start: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(logits, targets) of each held-out fold, over the outputs that its training folds have seen."""
    fold = stratified_folds(targets, FOLDS, rng)
    for number in range(FOLDS):
        train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if multi_label:
            seen = np.arange(n_outputs)
            train_targets, held_targets = targets[train], targets[held]
        else:
            seen = np.unique(targets[train])
            held = held[np.isin(targets[held], seen)]
            train_targets = np.searchsorted(seen, targets[train])
            held_targets = np.searchsorted(seen, targets[held])
        if not len(held) or not len(train) or (len(seen) < 2 and not multi_label):
            continue
        weights = fit_weights(
            span,
            train,
            train_targets,
            len(seen),
            inverse_regularization=inverse_regularization,
            multi_label=multi_label,
            start=start[seen],
        )
        yield span.coordinates[held] @ weights.T, held_targets


def fit_temperature(
    span: Span,
    targets: np.ndarray,
    n_outputs: int,
    *,
    inverse_regularization: float,
    multi_label: bool,
    start: np.ndarray,
    seed: int,
) -> float:
    """Temperature in [0.05, 20] with the least out-of-fold cross-entropy; 1 where too few rows can be scored.

    A row whose class occurs in its own fold only cannot be scored and is left out.
    """
    scored = list(
        _held_out_logits(
            span,
            targets,
            n_outputs,
            inverse_regularization,
            multi_label,
            start,
            np.random.default_rng(seed),
        )
    )
    if sum(len(held) for _, held in scored) < FEWEST_ROWS:
        return 1.0

    def loss(log_temperature: float) -> float:
        sharpness = np.exp(-log_temperature)
        return sum(cross_entropy(sharpness * logits, held, multi_label=multi_label) for logits, held in scored)

    best = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x))
