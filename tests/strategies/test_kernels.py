"""Invariants of the shared mathematics, and the law of the rejection sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from backend.strategies.bmmal import coalition_value, concat_game
from backend.strategies.kernels import kmeanspp, outer_rows
from backend.strategies.kernels.herding import greedy_coverage
from backend.strategies.kernels.kmeans import kmeans, nearest_to_centroids
from backend.strategies.kernels.kmeanspp import nearest_pick_distances, rejection_seeding
from backend.strategies.kernels.outer_rows import (
    Centres,
    GradientRows,
    PlainRows,
    squared_distances,
    squared_norms,
)
from backend.strategies.kernels.predicted_view import PredictedView
from backend.strategies.kernels.sampling import priority_sample
from backend.strategies.kernels.shapley import (
    coalitions,
    contributions,
    dominance_degree,
    modulation_weights,
    shapley_values,
)
from backend.strategies.kernels.uncertainty import entropy, least_confidence, margin, mean_margin
from backend.strategies.kernels.views import CentredView, squared_euclidean
from backend.strategies.pool import LazyRows, Pool
from tests.reference.seeding import materialised, sequential_seeding

seeds = st.integers(0, 2**32 - 1)


def game(seed: int, players: int, n: int = 6) -> tuple[list[str], dict[frozenset[str], np.ndarray]]:
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(players)]
    return names, {s: rng.random(n) for s in coalitions(names)}


def gradient_rows(seed: int, n: int = 9, classes: int = 3, *, weights: bool = True, **kind: bool) -> GradientRows:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), n)
    features = {"image": rng.normal(size=(n, 4)), "text": rng.normal(size=(n, 3))}
    return GradientRows(p, features, rng.random((n, 2)) if weights else None, **kind)


# -- contributions -----------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 4))
def test_shapley_values_sum_to_the_gain_of_the_full_coalition(seed, players):
    names, values = game(seed, players)
    total = values[frozenset(names)] - values[frozenset()]
    np.testing.assert_allclose(shapley_values(values, names).sum(axis=1), total, atol=1e-12)


@given(seeds, st.permutations([0, 1, 2]))
def test_permuting_modalities_permutes_shapley_values(seed, order):
    names, values = game(seed, 3)
    shuffled = [names[i] for i in order]
    expected = shapley_values(values, names)[:, order]
    np.testing.assert_allclose(shapley_values(values, shuffled), expected, atol=1e-12)


def test_shapley_value_of_two_players_is_the_mean_of_both_orders_of_arrival():
    names, values = game(7, 2)
    both, first, second, none = (values[frozenset(s)] for s in (names, names[:1], names[1:], []))
    np.testing.assert_allclose(shapley_values(values, names)[:, 0], 0.5 * (both - second + first - none))


@given(seeds, st.integers(1, 4))
def test_weights_reach_1_and_sum_to_modalities_minus_dominance(seed, players):
    names, values = game(seed, players)
    share = contributions(shapley_values(values, names))
    weights = modulation_weights(share)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    np.testing.assert_array_equal(weights.max(axis=1), 1.0)
    np.testing.assert_allclose(weights.sum(axis=1), players - dominance_degree(share), atol=1e-12)


def test_the_first_authors_worked_examples_hold():
    share = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(dominance_degree(share), [0.5, 0.8])
    np.testing.assert_allclose(modulation_weights(share), [[1, 0.8, 0.7], [1, 0.7, 0.5]])


def test_a_record_without_any_contribution_has_weight_1_everywhere():
    share = contributions(np.zeros((2, 3)))
    np.testing.assert_allclose(share, 1 / 3)
    np.testing.assert_array_equal(modulation_weights(share), 1.0)
    np.testing.assert_array_equal(dominance_degree(share), 0.0)


def test_multi_label_value_averages_the_predicted_positives_or_takes_the_largest():
    full = np.array([[0.9, 0.6, 0.1], [0.2, 0.4, 0.3]])
    under = np.array([[0.5, 0.3, 0.9], [0.1, 0.7, 0.9]])
    np.testing.assert_allclose(coalition_value(under, full, multi_label=True), [0.4, 0.7])


# -- factored rows -----------------------------------------------------------------------------------------------


@given(seeds, st.booleans(), st.booleans(), st.sampled_from([np.float64, np.float32]))
def test_factored_distances_equal_those_of_materialised_rows(seed, weights, multi_label, dtype):
    rows = gradient_rows(seed, weights=weights, multi_label=multi_label)
    full = materialised(rows, slice(None))
    expected = ((full[:, None, :] - full[None, :, :]) ** 2).sum(axis=2) + rows.offset
    left, right = rows.factors(slice(None), np.dtype(dtype))
    found = squared_distances(
        left, right, squared_norms(rows, np.dtype(np.float64)), Centres.of(rows, np.arange(len(rows))), rows.offset
    )
    np.testing.assert_allclose(squared_norms(rows, np.dtype(np.float64)), (full**2).sum(axis=1), rtol=1e-9)
    tolerance = {"rtol": 1e-9, "atol": 1e-15} if dtype is np.float64 else {"rtol": 1e-3, "atol": 1e-12}
    np.testing.assert_allclose(found, expected, **tolerance)


def test_exact_duplicates_are_exactly_the_offset_apart():
    rows = gradient_rows(3)
    twin = GradientRows(
        np.concatenate([rows.probabilities] * 2),
        {m: np.concatenate([z] * 2) for m, z in rows.features.items()},
        np.concatenate([rows.weights] * 2),
    )
    left, right = twin.factors(slice(0, 9), np.dtype(np.float64))
    d2 = squared_distances(
        left, right, squared_norms(twin, np.dtype(np.float64))[:9], Centres.of(twin, np.arange(9, 18)), twin.offset
    )
    np.testing.assert_array_equal(np.diag(d2), twin.offset)


@given(seeds)
def test_weights_of_1_reduce_bmmal_to_badge(seed):
    badge = gradient_rows(seed, n=40, weights=False)
    bmmal = GradientRows(badge.probabilities, badge.features, np.ones((40, 2)))
    draws = np.random.default_rng(seed).random(400)
    assert (
        sequential_seeding(badge, 12, iter(draws)).picks.tolist()
        == sequential_seeding(bmmal, 12, iter(draws)).picks.tolist()
    )
    picks = [rejection_seeding(rows, 12, np.random.default_rng(seed)).picks.tolist() for rows in (badge, bmmal)]
    assert picks[0] == picks[1]


# -- k-means++ ---------------------------------------------------------------------------------------------------


def law_of_ordered_picks(rows: GradientRows, k: int, allowed: np.ndarray) -> dict[tuple[int, ...], float]:
    """Probability of every ordered sequence of picks, by enumeration on the materialised rows."""
    full = materialised(rows, slice(None))
    d2 = ((full[:, None] - full[None]) ** 2).sum(axis=2) + rows.offset
    candidates = np.flatnonzero(allowed).tolist()
    first = max(candidates, key=lambda i: ((full[i] ** 2).sum(), -i))
    law = {}
    for tail in itertools.permutations([i for i in candidates if i != first], k - 1):
        chance, taken = 1.0, [first]
        for i in tail:
            weight = {j: d2[j, taken].min() for j in candidates if j not in taken}
            chance *= weight[i] / sum(weight.values())
            taken.append(i)
        law[tuple(taken)] = chance
    return law


@pytest.mark.parametrize(
    ("block", "refused"),
    [(64, 0.25), (2, 0.01), (3, 1e9)],
    ids=["as shipped", "refreshed after almost every refusal", "never refreshed"],
)
def test_rejection_sampler_has_the_law_of_the_sequential_one(monkeypatch, block, refused):
    monkeypatch.setattr(kmeanspp, "BLOCK", block)
    monkeypatch.setattr(kmeanspp, "REFUSED_SHARE", refused)
    rows = gradient_rows(11, n=8)
    allowed = np.array([True] * 6 + [False, True])
    law = law_of_ordered_picks(rows, 4, allowed)
    assert sum(law.values()) == pytest.approx(1.0)
    runs = 3000
    rng = np.random.default_rng(5)
    seen = dict.fromkeys(law, 0)
    for _ in range(runs):
        seen[tuple(rejection_seeding(rows, 4, rng, candidates=allowed).picks.tolist())] += 1
    observed = np.array(list(seen.values()), dtype=float)
    expected = np.array([law[key] for key in seen]) * runs
    rare = expected < 5
    grouped = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
    assert len(grouped[0]) > 30
    assert chisquare(*grouped).pvalue > 1e-3


def test_sequential_sampler_has_the_enumerated_law():
    rows = gradient_rows(11, n=8)
    allowed = np.array([True] * 6 + [False, True])
    law = law_of_ordered_picks(rows, 3, allowed)
    rng = np.random.default_rng(6)
    uniforms = iter(rng.random, None)
    seen = dict.fromkeys(law, 0)
    for _ in range(1500):
        seen[tuple(sequential_seeding(rows, 3, uniforms, candidates=allowed).picks.tolist())] += 1
    expected = np.array([law[key] for key in seen]) * 1500
    assert chisquare(np.array(list(seen.values())), expected).pvalue > 1e-3


@settings(max_examples=30)
@given(seeds, st.integers(1, 40))
def test_both_samplers_give_distinct_candidates_and_go_on_when_points_run_out(seed, k):
    rng = np.random.default_rng(seed)
    base = gradient_rows(seed, n=5)
    repeat = rng.integers(0, 5, 30)
    rows = GradientRows(base.probabilities[repeat], {m: z[repeat] for m, z in base.features.items()})
    allowed = rng.random(30) < 0.7
    for seeding in (
        rejection_seeding(rows, k, rng, candidates=allowed),
        sequential_seeding(rows, k, iter(rng.random, None), candidates=allowed),
    ):
        picks = seeding.picks.tolist()
        assert len(picks) == len(set(picks)) == min(k, allowed.sum())
        assert allowed[picks].all()


def test_plain_rows_that_all_coincide_are_drawn_without_repeats():
    rows = PlainRows(np.ones((10, 3), dtype=np.float32))
    assert sorted(rejection_seeding(rows, 10, np.random.default_rng(0)).picks.tolist()) == list(range(10))
    uniforms = iter(np.random.default_rng(0).random, None)
    assert sorted(sequential_seeding(rows, 10, uniforms).picks.tolist()) == list(range(10))


def test_bounds_left_by_the_rejection_sampler_are_above_the_true_distances_and_can_be_settled(monkeypatch):
    rows = gradient_rows(2, n=300)
    full = materialised(rows, slice(None))
    seeding = rejection_seeding(rows, 40, np.random.default_rng(0))
    truth = ((full[:, None] - full[seeding.picks][None]) ** 2).sum(axis=2).min(axis=1) + rows.offset
    rest = np.setdiff1d(np.arange(300), seeding.picks)
    assert (seeding.weights[rest] >= truth[rest] * (1 - 1e-4)).all()
    np.testing.assert_allclose(nearest_pick_distances(rows, seeding)[rest], truth[rest], rtol=1e-3)
    monkeypatch.setattr(kmeanspp, "EXACT_BELOW", 0)
    monkeypatch.setattr(kmeanspp, "REFINED_ROWS", 50)
    partly = nearest_pick_distances(rows, seeding)
    top = np.argsort(-seeding.weights, kind="stable")[:50]
    np.testing.assert_allclose(partly[top], truth[top], rtol=1e-3)
    others = np.setdiff1d(rest, top)
    assert partly[others].max() < partly[top].min()
    assert (np.diff(partly[others][np.argsort(seeding.weights[others])]) >= 0).all()


def test_chunked_passes_do_not_change_the_result(monkeypatch):
    rows = gradient_rows(4, n=100)
    whole = sequential_seeding(rows, 20, iter(np.random.default_rng(1).random, None))
    monkeypatch.setattr(outer_rows, "CHUNK_ROWS", 7)
    parts = sequential_seeding(rows, 20, iter(np.random.default_rng(1).random, None))
    np.testing.assert_array_equal(whole.picks, parts.picks)
    np.testing.assert_allclose(whole.weights, parts.weights, rtol=1e-9)


# -- k-means -----------------------------------------------------------------------------------------------------


def test_kmeans_finds_well_separated_groups_and_picks_one_central_row_of_each():
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(6, 8)
    member = np.repeat(np.arange(6), [5, 10, 15, 20, 25, 30])
    matrix = (centres[member] + 0.1 * rng.normal(size=(105, 8))).astype(np.float32)
    clusters = kmeans(matrix, 6, rng)
    picks = nearest_to_centroids(matrix, clusters)
    assert member[picks].tolist() == [5, 4, 3, 2, 1, 0]
    for pick in picks:
        peers = matrix[member == member[pick]]
        gaps = ((peers - peers.mean(axis=0)) ** 2).sum(axis=1)
        assert ((matrix[pick] - peers.mean(axis=0)) ** 2).sum() == pytest.approx(gaps.min(), rel=1e-4)


def test_kmeans_lowers_the_sum_of_squares_below_that_of_its_seeds():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(400, 5)).astype(np.float32)
    one = kmeans(matrix, 8, np.random.default_rng(0), rounds=1).squared.sum()
    many = kmeans(matrix, 8, np.random.default_rng(0), rounds=20).squared.sum()
    seeds_only = rejection_seeding(PlainRows(matrix), 8, np.random.default_rng(0), first=0).picks
    assert many < one < squared_euclidean(matrix, matrix[seeds_only]).min(axis=1).sum()


# -- herding -----------------------------------------------------------------------------------------------------


def plain_herding(kernel, uncertainty, weights, covered, k):
    """The definition, without any incremental update."""
    covered = covered.astype(float)
    picks = []
    for _ in range(k + 1):
        terms = weights[:, None] * np.maximum(kernel.astype(float) - covered[:, None], 0)
        np.fill_diagonal(terms, uncertainty * (1 - covered))
        gains = terms.sum(axis=0)
        open_gains = gains.copy()
        open_gains[picks] = -1
        picks.append(int(open_gains.argmax()))
        covered = np.maximum(covered, kernel[:, picks[-1]])
    return picks[:k], gains


@settings(max_examples=40)
@given(seeds, st.integers(1, 15), st.booleans())
def test_incremental_herding_equals_its_definition(seed, k, sampled):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(60, 4)).astype(np.float32)
    kernel = np.exp(-squared_euclidean(points, points))
    np.fill_diagonal(kernel, 1.0)
    uncertainty = rng.random(60) * (rng.random(60) < 0.8)
    weights = np.maximum(uncertainty, 0.6) if sampled else uncertainty
    covered = (rng.random(60) ** 3).astype(np.float32)
    picks, remaining = plain_herding(kernel, uncertainty, weights, covered, k)
    found = greedy_coverage(kernel, uncertainty, weights, covered, k)
    assert found.picks.tolist() == picks
    np.testing.assert_allclose(found.remaining, remaining, atol=1e-4 * max(1.0, found.gains[0]))
    if not sampled:
        assert (np.diff(found.gains) <= 1e-4 * found.gains[0]).all()


def test_herding_falls_back_to_uncertainty_once_everything_is_covered():
    kernel, u = np.ones((5, 5), dtype=np.float32), np.array([0.1, 0.9, 0.3, 0.8, 0.2])
    assert greedy_coverage(kernel, u, u, np.zeros(5), 4).picks.tolist() == [0, 1, 3, 2]


@given(seeds, st.integers(1, 30))
def testpriority_sample_keeps_sums_unbiased_and_large_weights_exact(seed, count):
    rng = np.random.default_rng(seed)
    rows, weights = np.arange(100, 140), rng.random(40) ** 4
    kept, found = priority_sample(rows, weights, count, rng)
    assert len(set(kept.tolist())) == count
    assert (np.diff(kept) > 0).all()
    own = weights[kept - 100]
    level = found.min()
    np.testing.assert_array_equal(found, np.maximum(own, level))


def testpriority_sample_estimates_the_total_without_bias():
    rng = np.random.default_rng(0)
    rows, weights = np.arange(200), rng.random(200) ** 6
    total = [priority_sample(rows, weights, 20, rng)[1].sum() for _ in range(4000)]
    error = np.std(total) / np.sqrt(len(total))
    assert abs(np.mean(total) - weights.sum()) < 4 * error
    assert np.std(total) < 0.3 * weights.sum()


def test_centred_view_has_unit_rows_and_leaves_absent_modalities_zero():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(50, 6)) + 3
    image[:10] = 0
    view = CentredView.of({"image": (7 * image).astype(np.float16), "text": rng.normal(size=(50, 4))})
    z = view.rows(np.arange(50))
    assert (z[:10, :6] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(z[10:, :6], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(z[:, 6:], axis=1), 1, rtol=1e-6)
    unit = (7 * image[10:]).astype(np.float16).astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    shifted = unit - unit.mean(axis=0)
    np.testing.assert_allclose(z[10:, :6], shifted / np.linalg.norm(shifted, axis=1, keepdims=True), atol=1e-6)


def test_identical_records_have_no_direction_after_centring():
    view = CentredView.of({"image": np.tile(np.float16([0.3, 0.5, 0.8]), (20, 1))})
    assert (view.rows(np.arange(20)) == 0).all()


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_predictions_add_their_own_distance_to_the_view(weight):
    rng = np.random.default_rng(0)
    features = {"image": rng.normal(size=(30, 6)).astype(np.float32)}
    p = rng.dirichlet(np.full(4, 0.3), 30)
    p[:5] = np.eye(4)[[0, 0, 1, 2, 3]]  # certain, alike and unlike
    view = CentredView.of(features)
    rows = np.arange(30)
    found = PredictedView(view, p, weight)
    assert len(found) == 30
    plain = squared_euclidean(view.rows(rows), view.rows(rows))
    extra = squared_euclidean(found.rows(rows), found.rows(rows)) - plain
    hellinger = 2.0 - 2.0 * np.sqrt(p) @ np.sqrt(p).T
    np.testing.assert_allclose(extra, weight * hellinger, atol=1e-5)
    assert extra[0, 1] == pytest.approx(0.0, abs=1e-5)
    assert extra[0, 2] == pytest.approx(2 * weight, abs=1e-5)


# -- uncertainty -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [least_confidence, margin, mean_margin, entropy])
@pytest.mark.parametrize("multi_label", [False, True])
def test_uncertainty_is_finite_least_at_certainty_and_largest_at_indifference(measure, multi_label):
    certain = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    even = np.full((1, 3), 0.5 if multi_label else 1 / 3)
    some = np.array([[0.7, 0.2, 0.1]])
    scores = measure(np.concatenate([certain, some, even]).astype(np.float32), multi_label=multi_label)
    assert np.isfinite(scores).all()
    assert (scores[:2] == 0).all()
    assert scores[0] < scores[2] < scores[3]


def test_multi_label_margin_looks_at_the_most_undecided_class_and_least_confidence_at_all():
    one_doubt, many_small_doubts = np.array([[0.5, 0.0, 0.0]]), np.array([[0.2, 0.2, 0.2]])
    assert margin(one_doubt, multi_label=True) > margin(many_small_doubts, multi_label=True)
    assert least_confidence(one_doubt, multi_label=True) < least_confidence(many_small_doubts, multi_label=True)


def test_each_coalition_of_the_game_is_computed_once() -> None:
    full = np.float32([[0.7, 0.3], [0.2, 0.8]])
    features = {"image": np.ones((2, 3), np.float32), "text": np.ones((2, 2), np.float32)}
    asked = []

    def compute(coalition: frozenset[str], part: dict[str, np.ndarray]) -> np.ndarray:
        asked.append(coalition)
        return full / 2

    lazy = LazyRows(tuple(coalitions(("image", "text"))), compute, features)
    pool = Pool(features, np.ones(2, bool), np.zeros(2, int), 2, probabilities=full, coalition_probabilities=lazy)
    _, values = concat_game(pool)
    assert len(asked) == len(set(asked)) == 3
    np.testing.assert_allclose(values[frozenset({"image"})], [0.35, 0.4])
    np.testing.assert_allclose(values[frozenset({"image", "text"})], [0.7, 0.8])
