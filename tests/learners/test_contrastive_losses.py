"""The contrastive losses: exact values and gradients, and what a masked entry may not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FeaturesMismatch, PairsInvalid
from backend.learners.contrastive import LARGEST_SCALE, KnownMatches, clip_loss, contents, siglip_loss

GOLDEN = Path(__file__).parents[1] / "golden"


def batch(n: int, d: int, seed: int, unit: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n, d))
    if unit:
        x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    return x, y


def losses(x, y, masked=None, scale=7.0, bias=-3.0):
    return {"clip": clip_loss(x, y, scale, masked), "siglip": siglip_loss(x, y, scale, bias, masked)}


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_values_and_gradients_are_those_of_the_golden_batch(name):
    golden = np.load(GOLDEN / "unaligned_loss.npz")
    found = losses(golden["x"], golden["y"], scale=float(golden["scale"]), bias=float(golden["bias"]))[name]
    assert found.value == pytest.approx(float(golden[name]), abs=1e-9)
    np.testing.assert_allclose(found.image, golden[f"{name}_gx"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.text, golden[f"{name}_gy"], rtol=0, atol=1e-9)


def cliplike(x, y, log_scale, bias, masked, name):
    """Both losses written out entry by entry, with no regard to overflow."""
    n = len(x)
    logits = np.exp(log_scale) * x @ y.T + (bias if name == "siglip" else 0.0)
    counts = np.eye(n, dtype=bool) | ~masked
    if name == "siglip":
        sign = 2 * np.eye(n) - 1
        return float((np.log1p(np.exp(-sign * logits)) * counts).sum() / n)
    total = 0.0
    for i in range(n):
        total += np.log(np.exp(logits[i, counts[i]]).sum()) - logits[i, i]
        total += np.log(np.exp(logits[counts[:, i], i]).sum()) - logits[i, i]
    return float(total / (2 * n))


@given(st.integers(1, 7), st.integers(1, 5), st.floats(-1, 2), st.floats(-4, 4), st.integers(0, 2**20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gradients_are_the_slopes_of_the_loss(n, d, log_scale, bias, seed, masking):
    x, y = batch(n, d, seed, unit=False)
    masked = np.random.default_rng(seed).random((n, n)) < (0.4 if masking else 0.0)
    h = 1e-6
    for name, found in losses(x, y, masked, float(np.exp(log_scale)), bias).items():
        assert found.value == pytest.approx(cliplike(x, y, log_scale, bias, masked, name), rel=1e-9)

        def slope(dx=0.0, dy=0.0, ds=0.0, db=0.0, name=name):
            up = cliplike(x + h * dx, y + h * dy, log_scale + h * ds, bias + h * db, masked, name)
            down = cliplike(x - h * dx, y - h * dy, log_scale - h * ds, bias - h * db, masked, name)
            return (up - down) / (2 * h)

        toward_x, toward_y = np.random.default_rng(seed + 1).normal(size=(2, n, d))
        assert np.vdot(found.image, toward_x) == pytest.approx(slope(dx=toward_x), rel=1e-4, abs=1e-6)
        assert np.vdot(found.text, toward_y) == pytest.approx(slope(dy=toward_y), rel=1e-4, abs=1e-6)
        assert found.log_scale == pytest.approx(slope(ds=1.0), rel=1e-4, abs=1e-6)
        assert found.bias == pytest.approx(slope(db=1.0), rel=1e-4, abs=1e-6)


def test_above_the_clamp_the_scale_is_one_hundred_and_has_no_slope():
    x, y = batch(6, 4, 0)
    for name, beyond in losses(x, y, scale=400.0).items():
        at = losses(x, y, scale=LARGEST_SCALE)[name]
        assert beyond.value == at.value
        assert beyond.log_scale == 0.0
        assert at.log_scale != 0.0


@given(st.integers(3, 8), st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_a_pair_whose_every_crossing_is_masked_pushes_nobody(n, seed):
    x, y = batch(n, 4, seed)
    masked = np.zeros((n, n), dtype=bool)
    masked[0, 1:] = masked[1:, 0] = True
    other_x, other_y = x.copy(), y.copy()
    other_x[0], other_y[0] = batch(1, 4, seed + 1)
    for name, one in losses(x, y, masked).items():
        two = losses(other_x, other_y, masked)[name]
        np.testing.assert_array_equal(one.image[1:], two.image[1:])
        np.testing.assert_array_equal(one.text[1:], two.text[1:])
        alone = losses(x[1:], y[1:])[name]
        np.testing.assert_allclose(one.image[1:] * n, alone.image * (n - 1), rtol=0, atol=1e-12)


@given(st.integers(2, 9), st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_pairs_does_not_matter(n, seed):
    x, y = batch(n, 5, seed)
    rng = np.random.default_rng(seed)
    order, masked = rng.permutation(n), rng.random((n, n)) < 0.2
    for name, one in losses(x, y, masked).items():
        two = losses(x[order], y[order], masked[np.ix_(order, order)])[name]
        assert two.value == pytest.approx(one.value, rel=1e-12)
        np.testing.assert_allclose(two.image, one.image[order], rtol=0, atol=1e-12)


def test_equal_images_equal_texts_and_known_crossings_are_masked_and_nothing_else():
    # image, text: 0 and 1 share an image, 1 and 2 a text, so (0, 2)'s crossing image 0 - text of 2 is pair 1 itself.
    matches = KnownMatches(np.array([5, 5, 6, 7, 8]), np.array([1, 2, 2, 3, 4]))
    masked = matches.masked(np.arange(5))
    assert {(int(i), int(j)) for i, j in np.argwhere(masked)} == {(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)}
    np.testing.assert_array_equal(matches.masked(np.array([2, 0])), [[False, False], [True, False]])
    assert matches.masked(np.array([3, 4])) is None


def test_contents_are_equal_where_the_rows_are():
    rows = np.array([[1, 2], [0, 0], [1, 2], [2, 1]], dtype=np.float16)
    number = contents(rows)
    np.testing.assert_array_equal(number[:, None] == number, (rows[:, None] == rows).all(axis=2))


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(FeaturesMismatch, match="at least one pair"):
        clip_loss(np.zeros((2, 3)), np.zeros((3, 3)), 1.0)
    with pytest.raises(FeaturesMismatch, match="masked has shape"):
        siglip_loss(np.zeros((2, 3)), np.zeros((2, 3)), 1.0, 0.0, np.zeros((3, 3), dtype=bool))
    with pytest.raises(PairsInvalid):
        KnownMatches(np.arange(3), np.arange(4))
