"""Coverage, calibration and clustering behind the strategies that have them, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.strategies import create_strategy
from backend.strategies.cluster_margin import linkage_clusters, round_robin
from backend.strategies.kernels import kmeans
from backend.strategies.kernels.coverage import ball, gaussian, likeness_matrix, nearest_squared
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.kernels.temperature import calibration_error, held_out_temperature, with_temperature
from backend.strategies.kernels.views import UnitView, view_of
from backend.strategies.probcover import pure_radius
from backend.strategies.uherding import labelled_radius

seeds = st.integers(0, 2**32 - 1)


def view(matrix: np.ndarray) -> UnitView:
    return UnitView({"x": matrix})


def pairwise(matrix: np.ndarray) -> np.ndarray:
    wide = matrix.astype(np.float64)
    return ((wide[:, None] - wide[None]) ** 2).sum(axis=2)


# -- coverage ----------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 40))
def test_likeness_is_symmetric_and_that_of_the_distances(seed, n):
    matrix = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    found = likeness_matrix(matrix, gaussian(2.0))
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, np.exp(-pairwise(matrix) / 2.0), atol=1e-5)
    squared = pairwise(matrix)
    sure = np.abs(squared - 1.5**2) > 1e-4
    np.testing.assert_array_equal(likeness_matrix(matrix, ball(1.5))[sure], (squared <= 1.5**2)[sure])
    np.testing.assert_allclose(
        nearest_squared(view(matrix), matrix, np.arange(n)[:3]), squared[:, :3].min(axis=1), atol=1e-4
    )


@pytest.mark.parametrize("name", ["maxherding", "probcover"])
def test_coverage_strategies_pick_the_best_single_record_first(name, make_pool):
    pool = make_pool(n=300)
    found = create_strategy(name).select(pool, 1, np.random.default_rng(0))
    rows = view_of(pool.features, "centred").rows(np.arange(300))
    known, free = rows[pool.labelled], pool.unlabelled
    if name == "maxherding":
        like = gaussian(1.0)
    else:
        rng = np.random.default_rng(0)
        like = ball(pure_radius(view_of(pool.features, "centred"), free, 5, 0.95, rng))
    kernel = like(pairwise(rows))
    covered = like(((rows[:, None] - known[None]) ** 2).sum(axis=2)).max(axis=1)
    gains = np.maximum(kernel - covered[:, None], 0).sum(axis=0)[free]
    assert gains[np.searchsorted(free, found.indices[0])] == pytest.approx(gains.max(), rel=1e-4)


def test_the_pure_radius_is_the_largest_at_which_enough_balls_are_pure():
    rng = np.random.default_rng(0)
    matrix = (np.repeat(np.eye(4, 6) * 3, 50, axis=0) + rng.normal(size=(200, 6))).astype(np.float32)
    rows = np.arange(200)
    radius = pure_radius(view(matrix), rows, 4, 0.9, np.random.default_rng(1))
    member = kmeans.kmeans(matrix, 4, np.random.default_rng(1)).assignment
    distance = np.sqrt(pairwise(matrix))
    foreign = np.where(member[:, None] == member[None], np.inf, distance).min(axis=1)
    assert (foreign >= radius * (1 - 1e-5)).mean() >= 0.9
    assert (foreign >= radius * (1 + 1e-3)).mean() < 0.9


def test_probcover_balls_hold_only_what_labels_do_not_hold_already(make_pool):
    # Ten distinct records and as many classes, so that each is a cluster of its own.
    pool = make_pool(
        n=200, n_classes=10, n_labelled=1, change=lambda f: {m: np.repeat(z[::20], 20, axis=0) for m, z in f.items()}
    )
    picks = create_strategy("probcover", purity=1.0).select(pool, 9, np.random.default_rng(0)).indices
    groups = picks // 20
    assert len(set(groups.tolist())) == 9
    assert np.flatnonzero(pool.labelled)[0] // 20 not in groups


def test_a_uniform_sample_stands_for_all_rows():
    rows, weights = uniform_sample(np.arange(10, 110), 20, np.random.default_rng(0))
    assert (np.diff(rows) > 0).all()
    assert len(rows) == 20 == len(weights)
    assert weights.sum() == pytest.approx(100)
    everything, ones = uniform_sample(np.arange(5), 20, np.random.default_rng(0))
    assert everything.tolist() == [0, 1, 2, 3, 4]
    assert (ones == 1).all()


@pytest.mark.parametrize("name", ["maxherding", "probcover", "uherding"])
def test_sampled_coverage_reaches_most_of_the_exact_one(name, make_pool):
    pool = make_pool(n=600, n_labelled=60)
    rows = view_of(pool.features, "centred").rows(np.arange(600))
    kernel = np.exp(-pairwise(rows))

    def reached(picks):
        held = np.concatenate([np.flatnonzero(pool.labelled), picks])
        return kernel[:, held].max(axis=1).sum() - kernel[:, pool.labelled].max(axis=1).sum()

    def pick(name, **options):
        return create_strategy(name, **options).select(pool, 10, np.random.default_rng(0)).indices

    sampled = reached(pick(name, exact_below=0, sample_rows=300))
    assert sampled > 0.8 * reached(pick(name))
    # What uherding covers is weighed by uncertainty, which random draws know nothing of.
    assert name == "uherding" or sampled > reached(pick("random"))


# -- uncertainty herding as published ----------------------------------------------------------------------------


def test_probabilities_with_a_temperature_are_those_of_scaled_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4)) * 3

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(with_temperature(softmax(logits), 2.5), softmax(logits / 2.5), rtol=1e-5)
    certain = np.eye(4)[[1, 2]]
    np.testing.assert_array_equal(with_temperature(certain, 3.0), certain)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    assert calibration_error(p, np.array([0, 1, 1, 1])) == pytest.approx((2 * 0.4 + 2 * 0.3) / 4)
    assert calibration_error(np.eye(2), np.array([0, 1])) == 0


def test_a_temperature_is_found_where_labels_are_noise_and_left_alone_where_they_are_few():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 60)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Labels that vectors do not tell make a confident model wrong: it must be softened.
    assert held_out_temperature(vectors, rng.integers(0, 5, 400), np.random.default_rng(1)) > 1.5
    assert held_out_temperature(vectors[:10], np.arange(10) % 2, np.random.default_rng(1)) == 1.0
    assert held_out_temperature(vectors, np.zeros(400, dtype=int), np.random.default_rng(1)) == 1.0


def test_the_radius_is_the_least_distance_between_labelled_records_that_are_no_copies():
    matrix = np.array([[0, 0], [0, 0], [0.3, 0.4], [0.6, 0.8], [5, 5]], dtype=np.float32)
    assert labelled_radius(view(matrix), np.arange(5)) == pytest.approx(0.5)
    assert labelled_radius(view(matrix), np.array([0, 1])) == 1.0
    assert labelled_radius(view(matrix), np.array([0, 4])) == 1.0


# -- cluster margin ----------------------------------------------------------------------------------------------


def test_round_robin_takes_one_of_each_cluster_in_turn_and_small_clusters_first():
    rows, member = np.arange(100, 110), np.array([7, 7, 7, 7, 7, 3, 3, 3, 5, 5])
    found = round_robin(rows, member, np.random.default_rng(0))
    assert sorted(found.tolist()) == rows.tolist()
    assert member[found - 100].tolist() == [5, 3, 7, 5, 3, 7, 3, 7, 7, 7]


def test_linkage_clusters_are_the_groups_that_are_there():
    rng = np.random.default_rng(0)
    member = rng.integers(0, 4, 200)
    matrix = (np.eye(4, 6)[member] * 5 + 0.1 * rng.normal(size=(200, 6))).astype(np.float32)
    found = linkage_clusters(view(matrix), np.arange(200), 4)
    assert len(np.unique(found)) == 4
    assert all(len(np.unique(found[member == c])) == 1 for c in range(4))


def test_cluster_margin_picks_among_the_smallest_margins(make_pool):
    pool = make_pool(n=600, n_labelled=60)
    picks = create_strategy("cluster_margin", candidates=3).select(pool, 20, np.random.default_rng(0)).indices
    top = np.sort(pool.probabilities, axis=1)
    gap = (top[:, -1] - top[:, -2])[pool.unlabelled]
    limit = np.sort(gap)[59]
    assert (top[picks, -1] - top[picks, -2] <= limit).all()
