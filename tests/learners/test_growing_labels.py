"""Fitting again on more labels gives the head that a fit from nothing gives."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import LabelsInvalid
from backend.learners import LateFusionHead
from backend.learners.growing import GrowingLabels
from backend.learners.newton import minimise
from tests.learners.test_late_fusion_head import records


def truth(y: np.ndarray, n_classes: int, multi_label: bool) -> np.ndarray:
    if not multi_label:
        return y
    wide = np.eye(n_classes, dtype=np.int64)[y]
    wide[np.arange(len(y)), (y + 1) % n_classes] |= np.arange(len(y)) % 3 == 0
    return wide


def up_to(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    known = np.full_like(labels, -1)
    known[rows] = labels[rows]
    return known


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("widths", [(60, 50), (14, 10)])
def test_every_head_is_the_one_fitted_from_nothing(multi_label: bool, widths: tuple[int, int]) -> None:
    features, y = records(150, 5, widths=widths)
    labels = truth(y, 5, multi_label)
    order = np.random.default_rng(1).permutation(150)
    learner = GrowingLabels(features, 5, multi_label=multi_label)
    for count in (1, 2, 20, 21, 90):
        known = up_to(labels, order[:count])
        grown = learner.calibrated(learner.fit(known), known)
        fresh = LateFusionHead.fit(features, known, n_classes=5, multi_label=multi_label)
        assert grown.temperature == pytest.approx(fresh.temperature, rel=1e-4)
        np.testing.assert_array_equal(grown.seen, fresh.seen)
        np.testing.assert_allclose(grown.probabilities(features), fresh.probabilities(features), atol=1e-4)
        for modality in features:
            np.testing.assert_allclose(grown.fused[modality], fresh.fused[modality], atol=1e-3)
            np.testing.assert_allclose(grown.unimodal[modality], fresh.unimodal[modality], atol=1e-3)
            np.testing.assert_allclose(
                grown.unimodal_probabilities(features, modality),
                fresh.unimodal_probabilities(features, modality),
                atol=1e-4,
            )


def test_a_unimodal_head_looked_at_late_is_that_of_its_own_round() -> None:
    features, y = records(80, 4)
    learner = GrowingLabels(features, 4)
    early = learner.fit(up_to(y, np.arange(20)))
    learner.fit(up_to(y, np.arange(60)))
    fresh = LateFusionHead.fit(features, up_to(y, np.arange(20)), n_classes=4)
    for modality in features:
        np.testing.assert_allclose(early.unimodal[modality], fresh.unimodal[modality], atol=1e-3)
    assert set(early.unimodal) == set(features) and len(early.unimodal) == 2
    with pytest.raises(KeyError):
        early.unimodal["sound"]


def test_equal_rows_and_absent_modalities_are_no_trouble() -> None:
    features, y = records(60, 4)
    features = {name: np.concatenate([rows, rows[:30]]) for name, rows in features.items()}
    features["text"][::3] = 0.0
    labels = np.concatenate([y, y[:30]])
    head = GrowingLabels(features, 4).fit(labels)
    fresh = LateFusionHead.fit(features, labels, n_classes=4, calibrate=False)
    np.testing.assert_allclose(head.probabilities(features), fresh.probabilities(features), atol=1e-4)


def test_labels_may_change_and_be_taken_back() -> None:
    features, y = records(60, 4)
    learner = GrowingLabels(features, 4)
    learner.fit(up_to(y, np.arange(50)))
    changed = up_to((y + 1) % 4, np.arange(10, 40))
    head, fresh = learner.fit(changed), LateFusionHead.fit(features, changed, n_classes=4, calibrate=False)
    np.testing.assert_allclose(head.probabilities(features), fresh.probabilities(features), atol=1e-4)


def test_wrong_labels_are_refused_as_everywhere() -> None:
    features, _ = records(20, 4)
    with pytest.raises(LabelsInvalid, match="-1"):
        GrowingLabels(features, 4).fit(np.full(20, 4))


class Quadratic:
    """Half the squared distance of the logits to a target."""

    def __init__(self, target: np.ndarray) -> None:
        self.target = target

    def evaluate(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        gap = logits - self.target
        return 0.5 * float((gap**2).sum()), gap, np.ones_like(gap)

    def curvature(self, probabilities: np.ndarray):
        return lambda change: change


def test_newton_solves_ridge_regression_exactly() -> None:
    rng = np.random.default_rng(0)
    rows, target, penalty = rng.normal(size=(40, 12)), rng.normal(size=(40, 3)), rng.uniform(0.1, 5.0, 12)
    found = minimise(rows, penalty, 2.0, Quadratic(target), np.zeros((3, 12)), 1e-10)
    wanted = np.linalg.solve(np.diag(penalty) + 2.0 * rows.T @ rows, 2.0 * rows.T @ target).T
    np.testing.assert_allclose(found, wanted, atol=1e-10)
