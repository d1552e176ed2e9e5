"""What a head is worth on held-out items: right answers, balance over classes and modalities, honest confidence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backend.learners import LateFusionHead
from backend.strategies.kernels.shapley import coalitions, contributions, dominance_degree, shapley_values

Features = Mapping[str, np.ndarray]

ECE_BINS = 15
# A class without a label has probability 0: its items would cost an infinite loss, so they cost log(1e6) = 13.8.
LEAST_PROBABILITY = 1e-6


def accuracy_and_f1(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return accuracy, and F1 averaged over the classes that occur in the truth."""
    size = int(max(truth.max(), predicted.max())) + 1
    hits = np.bincount(truth[truth == predicted], minlength=size)
    there, said = np.bincount(truth, minlength=size), np.bincount(predicted, minlength=size)
    occurs = there > 0
    f1 = 2.0 * hits[occurs] / (there + said)[occurs]
    return float((predicted == truth).mean()), float(f1.mean())


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the expected calibration error: |accuracy - confidence|, averaged over items in 15 bins of confidence.

    Source: Guo et al., ICML 2017, section 2 (equal-width bins).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.bincount(bins, weights=right - confidence.astype(np.float64), minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(truth))


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean negative log-likelihood (nats); no item costs more than 13.8."""
    said = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.maximum(said, LEAST_PROBABILITY)).mean())


def score(head: LateFusionHead, features: Features, truth: np.ndarray) -> dict[str, float]:
    """Return the measures of a single-label head, without its temperature, on items with these true classes.

    accuracy, macro_f1; accuracy_m: when the fused head sees modality m alone; contribution_m: mean share of m in the
    predicted probability (Shapley, as BMMAL weighs it); dominance: mean over items of the sum over modalities of
    (largest contribution - its own), 0 = balanced; nll, ece. What tells modalities apart needs two of them.
    Source of contributions: Shen et al., ACM MM 2023, eq. 5.
    """
    names = tuple(sorted(features))
    under = {s: head.coalition_probabilities(features, s, calibrated=False) for s in coalitions(names)}
    full = under[frozenset(names)]
    predicted = full.argmax(axis=1)
    accuracy, f1 = accuracy_and_f1(truth, predicted)
    found = {
        "accuracy": accuracy,
        "macro_f1": f1,
        "nll": log_loss(full, truth),
        "ece": calibration_error(full, truth),
    }
    if len(names) > 1:
        rows = np.arange(len(truth))
        phi = shapley_values({s: p[rows, predicted] for s, p in under.items()}, names)
        shares = contributions(phi)
        found["dominance"] = float(dominance_degree(shares).mean())
        for column, name in enumerate(names):
            alone = under[frozenset((name,))].argmax(axis=1)
            found[f"accuracy_{name}"] = float((alone == truth).mean())
            found[f"contribution_{name}"] = float(shares[:, column].mean())
    return found


def score_several(head: LateFusionHead, features: Features, truth: np.ndarray) -> dict[str, float]:
    """Return the measures of a head for several labels a record, without its temperature; truth: (n, C) 0/1.

    map: average precision of each label, averaged over the labels that occur in the truth; accuracy: share of the
    records with every label right (subset accuracy); macro_f1, micro_f1 at probability 1/2; map_m: when the head sees
    modality m alone; nll, ece: of all single yes-no answers.
    """
    names = tuple(sorted(features))
    full = head.probabilities(features, calibrated=False)
    said, occurs = full >= 0.5, truth.any(axis=0)
    hits, asked = (said & (truth > 0)).sum(axis=0), said.sum(axis=0) + truth.sum(axis=0)
    yes_no = np.stack([1.0 - full.reshape(-1), full.reshape(-1)], axis=1)
    found = {
        "map": _mean_precision(full, truth),
        "accuracy": float((said == (truth > 0)).all(axis=1).mean()),
        "macro_f1": float((2.0 * hits[occurs] / asked[occurs]).mean()),
        "micro_f1": float(2.0 * hits.sum() / max(asked.sum(), 1)),
        "nll": log_loss(yes_no, truth.reshape(-1).astype(np.int64)),
        "ece": calibration_error(yes_no, truth.reshape(-1)),
    }
    if len(names) > 1:
        for name in names:
            alone = head.coalition_probabilities(features, frozenset((name,)), calibrated=False)
            found[f"map_{name}"] = _mean_precision(alone, truth)
    return found


def _mean_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    occurs = truth.any(axis=0)
    return float(average_precision_score(truth[:, occurs], probabilities[:, occurs], average="macro"))


def score_in_full(head: LateFusionHead, features: Features, truth: np.ndarray) -> dict[str, float]:
    """Return the measures that need further fits: with the head's temperature, and of the unimodal heads.

    temperature, nll_calibrated, ece_calibrated; alone_m: accuracy of the head that was trained on modality m alone.
    """
    calibrated = head.probabilities(features, calibrated=True)
    found = {
        "temperature": head.temperature,
        "nll_calibrated": log_loss(calibrated, truth),
        "ece_calibrated": calibration_error(calibrated, truth),
    }
    if len(features) > 1:
        for name in sorted(features):
            predicted = head.unimodal_probabilities(features, name).argmax(axis=1)
            found[f"alone_{name}"] = float((predicted == truth).mean())
    return found
