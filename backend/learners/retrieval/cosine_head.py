"""Class probabilities from cosines with class prototypes, as a linear head on embedded pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from backend.learners.late_fusion import LateFusionHead

# What is believed before any label: a cosine of 1/2 is an even chance, one of 1 nearly certain. Standard deviations
# are of the log of the scale, of the common threshold, and of a class's own threshold around it.
TYPICAL_SCALE, SCALE_SPREAD = 8.0, 1.0
TYPICAL_THRESHOLD, THRESHOLD_SPREAD, CLASS_SPREAD = 4.0, 2.0, 1.0


def cosine_head(
    prototypes: np.ndarray,
    cosines: Mapping[str, np.ndarray],
    targets: np.ndarray,
    known: np.ndarray,
    seen: np.ndarray,
) -> LateFusionHead:
    """Head with logits = scale * (mean over modalities of the cosines) - threshold_c on rows of the shared space.

    A pair's probability of class c is the sigmoid of that, a branch's the same of its own cosine with a scale and
    thresholds of its own. Cosines of pairs that the branches were not trained on decide, so that sigmoids can be
    read as shares; hence there is no temperature besides. A missing modality is a zero row and counts as cosine 0.

    prototypes: (C, D) unit rows; cosines: modality -> (n, C) held out; targets: (n, C) 0/1; known: (n, C) bool, the
    cosines to learn from; seen: (C,) bool. Ours.
    """
    names = tuple(sorted(cosines))
    mean = np.mean([cosines[name] for name in names], axis=0)
    scale, thresholds = fit_scale(mean, targets, known)
    alone = {name: fit_scale(cosines[name], targets, known) for name in names}
    rows = np.asarray(prototypes, dtype=np.float64)
    return LateFusionHead(
        fused={name: rows * (scale / len(names)) for name in names},
        unimodal={name: rows * alone[name][0] for name in names},
        fused_bias=-thresholds,
        unimodal_bias={name: -alone[name][1] for name in names},
        seen=seen,
        temperature=1.0,
        multi_label=True,
        inverse_regularization=1.0,
    )


def fit_scale(cosines: np.ndarray, targets: np.ndarray, known: np.ndarray) -> tuple[float, np.ndarray]:
    """(scale, thresholds (C,)): the most probable logistic curve of each class over its cosine, one slope for all.

    cosines, targets, known: (n, C); entries that are not ``known`` do not count. With few labels the answer stays
    near what is believed before (normal priors, see the constants above), with none it is just that.
    """
    n_classes = cosines.shape[1]
    weight = known.astype(np.float64)
    middle = np.array([np.log(TYPICAL_SCALE), TYPICAL_THRESHOLD, *np.zeros(n_classes)])
    precision = np.array([SCALE_SPREAD, THRESHOLD_SPREAD, *np.full(n_classes, CLASS_SPREAD)]) ** -2.0

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.exp(values[0]) * cosines - (values[1] + values[2:])
        residual = weight * (expit(logits) - targets)
        away = values - middle
        loss = (weight * (np.logaddexp(0.0, logits) - targets * logits)).sum() + 0.5 * (precision * away**2).sum()
        by_class = -residual.sum(axis=0)
        slope = np.array([np.exp(values[0]) * (residual * cosines).sum(), by_class.sum(), *by_class])
        return float(loss), slope + precision * away

    found = minimize(evaluate, middle, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-6}).x
    return float(np.exp(found[0])), np.asarray(found[1] + found[2:])
