"""Measures of a head against values worked out by hand and by others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.learners import LateFusionHead
from backend.simulation.scores import (
    accuracy_and_f1,
    calibration_error,
    log_loss,
    score,
    score_in_full,
    score_several,
)


def test_accuracy_and_f1_of_a_worked_example() -> None:
    # Class 0: 1 hit of 2 said and 2 there, F1 1/2. Class 1: 1 hit, 2 said, 1 there: 2/3. Class 3: never said: 0.
    accuracy, f1 = accuracy_and_f1(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 0]))
    assert accuracy == 0.5
    assert f1 == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_calibration_error_of_a_worked_example() -> None:
    # Two items at 0.9, one right: gap 0.4. Two at 0.6, both right: gap 0.4. All weigh the same.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert calibration_error(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1.0


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 1000))
def test_calibration_error_is_that_of_its_definition(n: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.4), n)
    truth = rng.integers(0, n_classes, n)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    total = 0.0
    for lower in range(15):
        inside = (confidence * 15 >= lower) & ((confidence * 15 < lower + 1) | (lower == 14))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(probabilities, truth) == pytest.approx(total)


def test_log_loss_of_a_worked_example_and_of_a_class_never_seen() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]])
    assert log_loss(probabilities, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert log_loss(probabilities[:1], np.array([2])) == pytest.approx(np.log(1e6))


def two_class_head(image: float, text: float) -> LateFusionHead:
    """Logits of class 1 minus class 0: image and text times their one feature."""

    def weights(size: float) -> np.ndarray:
        return np.array([[0.0], [size]])

    return LateFusionHead(
        {"image": weights(image), "text": weights(text)},
        {"image": weights(1.0), "text": weights(-1.0)},
        np.zeros(2),
        {"image": np.zeros(2), "text": np.zeros(2)},
        np.array([True, True]),
        2.0,
        False,
        30.0,
    )


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_contributions_are_the_shapley_values_of_the_predicted_probability() -> None:
    features = {"image": np.ones((1, 1), np.float32), "text": np.ones((1, 1), np.float32)}
    found = score(two_class_head(2.0, 1.0), features, np.array([1]))
    both, image, text, none = sigmoid(3), sigmoid(2), sigmoid(1), 0.5
    phi_image = 0.5 * ((image - none) + (both - text))
    phi_text = 0.5 * ((text - none) + (both - image))
    share = phi_image / (phi_image + phi_text)
    assert found["contribution_image"] == pytest.approx(share, abs=1e-5)
    assert found["contribution_text"] == pytest.approx(1 - share, abs=1e-5)
    assert found["dominance"] == pytest.approx(abs(2 * share - 1), abs=1e-5)
    assert found["accuracy"] == 1.0 and found["nll"] == pytest.approx(-np.log(both), abs=1e-5)


def test_a_modality_alone_and_the_temperature_are_told_apart() -> None:
    features = {"image": np.ones((4, 1), np.float32), "text": np.ones((4, 1), np.float32)}
    truth = np.array([1, 1, 1, 0])
    head = two_class_head(3.0, -1.0)
    found = score(head, features, truth) | score_in_full(head, features, truth)
    assert (found["accuracy"], found["accuracy_image"], found["accuracy_text"]) == (0.75, 0.75, 0.25)
    assert (found["alone_image"], found["alone_text"]) == (0.75, 0.25)
    assert found["ece"] == pytest.approx(sigmoid(2) - 0.75, abs=1e-5)
    assert found["ece_calibrated"] == pytest.approx(abs(sigmoid(1) - 0.75), abs=1e-5)
    assert found["temperature"] == 2.0


def test_one_modality_alone_has_no_balance() -> None:
    features = {"text": np.ones((2, 1), np.float32)}
    head = LateFusionHead.fit({"text": np.array([[1.0], [-1.0]])}, np.array([0, 1]), n_classes=2)
    assert set(score(head, features, np.array([0, 1]))) == {"accuracy", "macro_f1", "nll", "ece"}


def test_measures_of_several_labels_are_those_of_a_worked_example() -> None:
    """One feature a label, so that the probabilities are those of the rows: label 0 ranks a no above a yes."""
    wanted = np.array([[0.9, 0.2], [0.7, 0.8], [0.4, 0.6], [0.2, 0.1]])
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.int8)
    head = LateFusionHead(
        fused={"image": np.eye(2)},
        unimodal={"image": np.eye(2)},
        fused_bias=np.zeros(2),
        unimodal_bias={"image": np.zeros(2)},
        seen=np.ones(2, dtype=bool),
        temperature=1.0,
        multi_label=True,
        inverse_regularization=1.0,
    )
    found = score_several(head, {"image": np.log(wanted / (1 - wanted)).astype(np.float32)}, truth)
    # Label 0: yes, no, yes, no in the order of the probabilities; label 1: yes, yes first.
    assert found["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert found["accuracy"] == 0.5
    assert found["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert found["macro_f1"] == pytest.approx((0.5 + 1) / 2)
    right = np.where(truth > 0, wanted, 1 - wanted)
    assert found["nll"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
