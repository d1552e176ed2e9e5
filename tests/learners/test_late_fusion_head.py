"""The fused head: its optimum, its probabilities in the awkward cases, calibration and persistence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from backend.errors import FeaturesMismatch, HeadStateInvalid, LabelsInvalid
from backend.learners import LateFusionHead
from backend.learners.calibration import stratified_folds
from backend.learners.logistic import softmax


def records(n: int, n_classes: int, *, widths: tuple[int, int] = (14, 10), seed: int = 0, spread: float = 1.0):
    """Unit rows of two modalities around class centres, and the classes."""
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n)])[:n]
    features = {}
    for name, width in zip(("image", "text"), widths, strict=True):
        rows = rng.normal(size=(n_classes, width))[classes] + spread * rng.normal(size=(n, width))
        features[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return features, classes


def joint(features, dtype=np.float64):
    return np.concatenate([features["image"], features["text"]], axis=1).astype(dtype)


def weights_of(head):
    return np.concatenate([head.fused["image"], head.fused["text"]], axis=1)


def same_head(one: LateFusionHead, other: LateFusionHead) -> None:
    first, second = one.state(), other.state()
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for key, array in first[0].items():
        np.testing.assert_array_equal(array, second[0][key], err_msg=key)


# -- the optimum -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "widths"), [(40, (60, 50)), (200, (14, 10)), (24, (14, 10))])
@pytest.mark.parametrize("strength", [30.0, 1.0])
def test_gradient_vanishes_at_the_fitted_weights(n, widths, strength):
    features, y = records(n, 6, widths=widths)
    head = LateFusionHead.fit(features, y, n_classes=6, inverse_regularization=strength)
    for rows, weights in [
        (joint(features), weights_of(head)),
        *((features[m].astype(float), head.unimodal[m]) for m in ("image", "text")),
    ]:
        residual = softmax(rows @ weights.T)
        residual[np.arange(n), y] -= 1
        gradient = weights + strength * residual.T @ rows
        assert np.abs(gradient).max() < 1e-3 * strength


@pytest.mark.parametrize(("n", "widths"), [(40, (60, 50)), (200, (14, 10))])
def test_weights_equal_those_of_scikit_learn_on_the_same_objective(n, widths):
    features, y = records(n, 5, widths=widths)
    head = LateFusionHead.fit(features, y, n_classes=5, calibrate=False)
    peer = LogisticRegression(C=30.0, fit_intercept=False, tol=1e-10, max_iter=20_000).fit(joint(features), y)
    np.testing.assert_allclose(weights_of(head), peer.coef_, atol=2e-3)
    np.testing.assert_allclose(head.probabilities(features), peer.predict_proba(joint(features)), atol=2e-4)


def test_multi_label_weights_equal_separate_scikit_learn_heads_with_a_penalised_bias():
    features, y = records(120, 4)
    labels = (np.eye(4)[y] + (np.random.default_rng(1).random((120, 4)) < 0.2) > 0).astype(np.int8)
    head = LateFusionHead.fit(features, labels, n_classes=4, multi_label=True, calibrate=False)
    rows = np.concatenate([joint(features), np.ones((120, 1))], axis=1)
    for c in range(4):
        peer = LogisticRegression(C=30.0, fit_intercept=False, tol=1e-10, max_iter=20_000).fit(rows, labels[:, c])
        np.testing.assert_allclose(np.append(weights_of(head)[c], head.fused_bias[c]), peer.coef_[0], atol=5e-3)


def test_warm_start_reaches_the_same_optimum_from_an_earlier_head():
    features, y = records(200, 5)
    early = LateFusionHead.fit(features, np.where(np.arange(200) < 60, y, -1), n_classes=5)
    cold = LateFusionHead.fit(features, y, n_classes=5)
    warm = LateFusionHead.fit(features, y, n_classes=5, warm_start=early)
    np.testing.assert_allclose(weights_of(warm), weights_of(cold), atol=1e-3)
    np.testing.assert_allclose(warm.probabilities(features), cold.probabilities(features), atol=1e-4)


def test_warm_start_of_another_shape_is_ignored():
    features, y = records(80, 5)
    other = LateFusionHead.fit(records(80, 5, widths=(9, 10))[0], y, n_classes=5)
    same_head(
        LateFusionHead.fit(features, y, n_classes=5, warm_start=other), LateFusionHead.fit(features, y, n_classes=5)
    )


def test_unlabelled_rows_do_not_train():
    features, y = records(90, 4)
    part = {m: z[:50] for m, z in features.items()}
    hidden = np.where(np.arange(90) < 50, y, -1)
    same_head(LateFusionHead.fit(part, y[:50], n_classes=4), LateFusionHead.fit(features, hidden, n_classes=4))
    same_head(
        LateFusionHead.fit(part, y[:50], n_classes=4),
        LateFusionHead.fit(features, y, n_classes=4, labelled=np.arange(90) < 50),
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_same_data_same_head(multi_label):
    features, y = records(90, 4)
    labels = np.eye(4, dtype=np.int8)[y] if multi_label else y
    heads = [LateFusionHead.fit(features, labels, n_classes=4, multi_label=multi_label, seed=3) for _ in range(2)]
    same_head(*heads)


# -- awkward label sets ------------------------------------------------------------------------------------------


def test_without_labels_every_class_is_equally_likely():
    features, _y = records(20, 4)
    head = LateFusionHead.fit(features, np.full(20, -1), n_classes=4)
    np.testing.assert_allclose(head.probabilities(features), 0.25)
    np.testing.assert_allclose(head.unimodal_probabilities(features, "image"), 0.25)
    many = LateFusionHead.fit(features, np.full((20, 4), -1), n_classes=4, multi_label=True)
    np.testing.assert_allclose(many.probabilities(features), 0.5)


def test_a_single_seen_class_takes_all_probability():
    features, _ = records(20, 4)
    head = LateFusionHead.fit(features, np.full(20, 2), n_classes=4)
    np.testing.assert_array_equal(head.probabilities(features), np.eye(4)[np.full(20, 2)])
    assert head.temperature == 1.0


def test_classes_never_seen_have_probability_0():
    features, y = records(60, 3)
    p = LateFusionHead.fit(features, 2 * y, n_classes=7).probabilities(features)
    assert (p[:, [1, 3, 5, 6]] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p.argmax(axis=1) == 2 * y).mean() > 0.9


def test_multi_label_classes_with_one_outcome_lean_to_it_and_stay_finite():
    features, y = records(60, 3)
    labels = np.eye(3, dtype=np.int8)[y]
    labels = np.concatenate([labels, np.zeros((60, 1), np.int8), np.ones((60, 1), np.int8)], axis=1)
    head = LateFusionHead.fit(features, labels, n_classes=5, multi_label=True)
    q = head.probabilities(features)
    assert np.isfinite(q).all()
    assert (q[:, 3] < 0.1).all()
    assert (q[:, 4] > 0.9).all()
    assert head.seen.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("multi_label", [False, True])
def test_tiny_label_sets_fit_with_temperature_1(n, multi_label):
    features, y = records(n, 2)
    labels = np.eye(2, dtype=np.int8)[y] if multi_label else y
    head = LateFusionHead.fit(features, labels, n_classes=2, multi_label=multi_label)
    assert head.temperature == 1.0
    assert np.isfinite(head.probabilities(features)).all()


def test_one_label_a_class_cannot_be_calibrated_and_keeps_temperature_1():
    features, _ = records(40, 40)
    assert LateFusionHead.fit(features, np.arange(40), n_classes=40).temperature == 1.0


@pytest.mark.parametrize(("n", "calibrated"), [(11, False), (12, True)])
def test_a_temperature_is_fitted_from_twelve_labels_on(n, calibrated):
    features, _ = records(n, 2)
    head = LateFusionHead.fit(features, np.arange(n) % 2, n_classes=2)
    assert (head.temperature != 1.0) == calibrated


# -- modalities --------------------------------------------------------------------------------------------------


def test_coalition_equals_zeroing_the_other_modality():
    features, y = records(80, 4)
    head = LateFusionHead.fit(features, y, n_classes=4)
    zeroed = {"image": features["image"], "text": np.zeros_like(features["text"])}
    np.testing.assert_array_equal(
        head.coalition_probabilities(features, frozenset({"image"})), head.probabilities(zeroed)
    )
    np.testing.assert_array_equal(head.probabilities({"image": features["image"]}), head.probabilities(zeroed))
    np.testing.assert_array_equal(
        head.coalition_probabilities(features, frozenset({"image", "text"})), head.probabilities(features)
    )


def test_the_empty_coalition_knows_nothing_but_the_seen_classes():
    features, y = records(80, 3)
    p = LateFusionHead.fit(features, y, n_classes=5).coalition_probabilities(features, frozenset())
    np.testing.assert_allclose(p[:, :3], 1 / 3, rtol=1e-6)
    assert (p[:, 3:] == 0).all()


def test_records_without_a_modality_still_train_and_predict():
    features, y = records(120, 4, spread=0.5)
    features["image"][::2] = 0
    features["text"][1::4] = 0
    head = LateFusionHead.fit(features, y, n_classes=4)
    p = head.probabilities(features)
    there = (features["image"] != 0).any(axis=1) | (features["text"] != 0).any(axis=1)
    assert np.isfinite(p).all()
    assert (p.argmax(axis=1) == y)[there].mean() > 0.9
    nothing = LateFusionHead.fit({m: 0 * z for m, z in features.items()}, y, n_classes=4)
    np.testing.assert_allclose(nothing.probabilities(features), 0.25)


def test_a_single_modality_is_a_head_of_its_own():
    features, y = records(80, 4)
    alone = LateFusionHead.fit({"image": features["image"]}, y, n_classes=4, calibrate=False)
    both = LateFusionHead.fit(features, y, n_classes=4, calibrate=False)
    part = {"image": features["image"]}
    np.testing.assert_allclose(alone.probabilities(part), both.unimodal_probabilities(features, "image"), atol=1e-4)


def test_chunks_and_half_precision_do_not_change_answers(monkeypatch):
    features, y = records(50, 4)
    head = LateFusionHead.fit(features, y, n_classes=4)
    whole = head.probabilities(features)
    half = head.probabilities({m: z.astype(np.float16) for m, z in features.items()})
    monkeypatch.setattr("backend.learners.late_fusion.CHUNK_ROWS", 7)
    np.testing.assert_allclose(head.probabilities(features), whole, atol=1e-6)
    np.testing.assert_allclose(half, whole, atol=2e-2)


# -- calibration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_label", [False, True])
def test_calibration_changes_confidence_and_never_the_answer(multi_label):
    features, y = records(300, 5, spread=2.5)
    labels = np.eye(5, dtype=np.int8)[y] if multi_label else y
    head = LateFusionHead.fit(features, labels, n_classes=5, multi_label=multi_label)
    assert head.temperature != 1.0
    calibrated, raw = head.probabilities(features), head.probabilities(features, calibrated=False)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), raw.argmax(axis=1))
    np.testing.assert_array_equal(calibrated >= 0.5, raw >= 0.5) if multi_label else None
    bare = LateFusionHead.fit(features, labels, n_classes=5, multi_label=multi_label, calibrate=False)
    np.testing.assert_allclose(bare.probabilities(features), raw, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_calibration_lowers_the_loss_on_records_not_trained_on(multi_label):
    features, y = records(1500, 5, spread=3.0)
    labels = np.eye(5, dtype=np.int8)[y] if multi_label else y
    train = np.arange(1500) < 200
    head = LateFusionHead.fit(features, labels, n_classes=5, multi_label=multi_label, labelled=train)
    fresh = {m: z[~train] for m, z in features.items()}

    def loss(p: np.ndarray) -> float:
        right = np.where(labels[~train] == 1, p, 1 - p) if multi_label else p[np.arange(1300), y[~train]]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    assert loss(head.probabilities(fresh)) < loss(head.probabilities(fresh, calibrated=False))


@given(st.lists(st.integers(0, 4), min_size=3, max_size=60), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_folds_share_out_every_class_evenly(classes, seed):
    targets = np.array(classes)
    fold = stratified_folds(targets, 3, np.random.default_rng(seed))
    for c in np.unique(targets):
        sizes = np.bincount(fold[targets == c], minlength=3)
        assert sizes.max() - sizes.min() <= 1


# -- persistence and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_saved_head_answers_bit_for_bit_the_same(multi_label, tmp_path):
    import safetensors.numpy as safetensors

    features, y = records(80, 4)
    labels = np.eye(4, dtype=np.int8)[y] if multi_label else y
    head = LateFusionHead.fit(features, labels, n_classes=4, multi_label=multi_label)
    arrays, metadata = head.state()
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())
    path = tmp_path / "head.safetensors"
    safetensors.save_file(arrays, path, metadata)
    back = LateFusionHead.from_state(safetensors.load_file(path), metadata)
    same_head(head, back)
    np.testing.assert_array_equal(back.probabilities(features), head.probabilities(features))
    np.testing.assert_array_equal(
        back.unimodal_probabilities(features, "text"), head.unimodal_probabilities(features, "text")
    )


def test_a_foreign_or_damaged_state_is_refused():
    features, y = records(40, 4)
    arrays, metadata = LateFusionHead.fit(features, y, n_classes=4).state()
    with pytest.raises(HeadStateInvalid, match="kind, format"):
        LateFusionHead.from_state(arrays, {**metadata, "kind": "forest"})
    del arrays["fused.image"]
    with pytest.raises(HeadStateInvalid, match=r"fused\.image"):
        LateFusionHead.from_state(arrays, metadata)


def test_wrong_labels_are_refused_with_the_field_and_the_remedy():
    features, y = records(40, 4)
    with pytest.raises(LabelsInvalid, match=r"reach from 0 to 3; use 0\.\.2"):
        LateFusionHead.fit(features, y, n_classes=3)
    with pytest.raises(LabelsInvalid, match=r"shape \(40,\), expected \(40, 4\)"):
        LateFusionHead.fit(features, y, n_classes=4, multi_label=True)
    with pytest.raises(LabelsInvalid, match="n_classes is 0"):
        LateFusionHead.fit(features, y, n_classes=0)
    with pytest.raises(LabelsInvalid, match="labelled has shape"):
        LateFusionHead.fit(features, y, n_classes=4, labelled=np.ones(3, bool))


def test_wrong_features_are_refused_with_the_field_and_the_remedy():
    features, y = records(40, 4)
    head = LateFusionHead.fit(features, y, n_classes=4)
    with pytest.raises(FeaturesMismatch, match="'audio' is not one of"):
        head.probabilities({"audio": features["image"]})
    with pytest.raises(FeaturesMismatch, match=r"features\['image'\] has shape \(40, 10\)"):
        head.probabilities({"image": features["text"]})
    with pytest.raises(FeaturesMismatch, match="empty"):
        head.probabilities({})
    with pytest.raises(FeaturesMismatch, match="labels have 39 rows"):
        LateFusionHead.fit(features, y[:39], n_classes=4)
    broken = {**features, "image": features["image"].copy()}
    broken["image"][7, 3] = np.nan
    with pytest.raises(FeaturesMismatch, match=r"features\['image'\] row 7 holds NaN"):
        LateFusionHead.fit(broken, y, n_classes=4)


def test_importing_learners_and_strategies_does_not_import_torch():
    code = "import sys, backend.learners, backend.strategies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_multi_label_probabilities_are_the_sigmoid_of_the_linear_scores():
    features, y = records(40, 4)
    head = LateFusionHead.fit(features, np.eye(4, dtype=np.int8)[y], n_classes=4, multi_label=True)
    scores = joint(features) @ weights_of(head).T + head.fused_bias
    np.testing.assert_allclose(head.probabilities(features), expit(scores / head.temperature), atol=1e-5)
