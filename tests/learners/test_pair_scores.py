"""Recall both ways and group scores, exact and independent of how the work is cut up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FeaturesMismatch, PairsInvalid
from backend.learners import pair_scores
from backend.learners.pair_scores import group_scores, group_scores_of, ranks, ranks_in, recall, retrieval

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unaligned_scores.npz")


def unit(rng: np.random.Generator, n: int, d: int = 6) -> np.ndarray:
    rows = rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_group_scores_are_the_golden_ones():
    found = group_scores(GOLDEN["groups"])
    for name in ("text", "image", "group"):
        np.testing.assert_array_equal(getattr(found, name), GOLDEN[name])
        assert found.means()[name] == float(GOLDEN[f"{name}_score"])


@pytest.mark.parametrize(("way", "similarities"), [("i2t", GOLDEN["sim"]), ("t2i", GOLDEN["sim"].T)])
def test_recall_is_the_golden_one(way, similarities):
    found = recall(ranks_in(similarities, np.arange(len(similarities))))
    assert found == {depth: float(GOLDEN[f"{way}_r{depth}"]) for depth in (1, 5, 10)}


def test_ties_win_no_group_and_lose_no_recall():
    assert group_scores(np.ones((1, 2, 2))).means() == {"text": 0.0, "image": 0.0, "group": 0.0}
    assert recall(ranks_in(np.ones((4, 4)), np.arange(4))) == {1: 1.0, 5: 1.0, 10: 1.0}


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**20), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_blocks_do_not_change_the_ranks(queries, gallery, seed, entries):
    rng = np.random.default_rng(seed)
    q, g, truth = unit(rng, queries), unit(rng, gallery), rng.integers(0, gallery, queries)
    similarities = q.astype(np.float64) @ g.astype(np.float64).T
    expected = [sum(s > row[t] + 1e-12 for s in row) for row, t in zip(similarities, truth, strict=True)]
    before, pair_scores.BLOCK_ENTRIES = pair_scores.BLOCK_ENTRIES, entries
    try:
        np.testing.assert_array_equal(ranks(q, g, truth), expected)
    finally:
        pair_scores.BLOCK_ENTRIES = before


def test_a_copy_of_the_counterpart_is_not_above_it():
    rng = np.random.default_rng(3)
    gallery = np.repeat(unit(rng, 40, 37), 3, axis=0)
    assert not ranks(gallery, gallery, np.arange(120)).any()


def test_of_several_true_counterparts_the_nearest_counts():
    image = np.eye(3, dtype=np.float32)[[0]]
    text = np.array([[0, 1, 0], [0.9, 0.1, 0], [0.5, 0.5, 0], [1, 0, 0]], dtype=np.float32)
    pairs = np.array([[0, 0], [0, 1]])
    found = retrieval(image, text, pairs, depths=(1, 2))
    assert found.image_to_text == {1: 0.0, 2: 1.0}
    # Each of the two texts that are asked for has only the one image to find.
    assert found.text_to_image == {1: 1.0, 2: 1.0}
    assert found.mean(1) == 0.5


def test_groups_of_rows_score_as_their_similarities_do():
    rng = np.random.default_rng(1)
    image, text = unit(rng, 8), unit(rng, 8)
    groups = np.array([[[0, 3], [1, 2]], [[4, 4], [7, 5]]])
    similarities = np.array([[[image[i] @ text[j] for _, j in g] for i, _ in g] for g in groups])
    one, two = group_scores_of(image, text, groups), group_scores(similarities)
    np.testing.assert_array_equal(one.text, two.text)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.group, two.group)


def test_what_does_not_fit_is_refused():
    rows = np.eye(3)
    with pytest.raises(FeaturesMismatch):
        ranks(rows, np.eye(4), np.arange(3))
    with pytest.raises(PairsInvalid):
        ranks(rows, rows, np.array([0, 1, 3]))
    with pytest.raises(PairsInvalid):
        retrieval(rows, rows[:2])
    with pytest.raises(PairsInvalid):
        group_scores_of(rows, rows, np.zeros((2, 2)))
    with pytest.raises(FeaturesMismatch):
        group_scores(np.zeros((4, 2, 3)))
