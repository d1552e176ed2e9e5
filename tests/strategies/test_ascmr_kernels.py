"""What holds for every match kernel, allocation, selector and prediction cover, whatever the numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from backend.errors import AllocationInvalid, GaussiansInvalid
from backend.strategies.kernels import prediction_cover
from backend.strategies.kernels.allocation import Allocation, frank_wolfe, greedy_allocation, improved, objective
from backend.strategies.kernels.density import MatchKernel, TableKernel, mean_similarity, reference_density
from backend.strategies.kernels.gaussian_match import (
    Gaussians,
    fused,
    log_match,
    log_match_table,
)
from backend.strategies.kernels.prediction_cover import PredictionCover
from backend.strategies.kernels.probabilistic_selector import MODALITIES, Selector, SelectorSettings
from backend.strategies.kernels.selector_scores import score_pool
from tests.reference.ascmr_code import divergence_table
from tests.reference.ascmr_heads import reparameterised_samples, sampled_distances
from tests.reference.noted_formulas import log_mismatch

seeds = st.integers(0, 2**32 - 1)
tempers = st.sampled_from([1.0, 4.0, 30.0])
weights = st.sampled_from([0.0, 0.3, 1.0, 8.0])


def gaussians(seed: int, n: int, width: int) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(rng.normal(size=(n, width)), rng.uniform(0.01, 3.0, (n, width)))


def instance(seed: int, n: int) -> tuple[np.ndarray, TableKernel]:
    """Information between 0 and 1 and the match kernel of random Gaussians."""
    rng = np.random.default_rng(seed)
    return rng.random(n), TableKernel(table(gaussians(seed, n, 3)))


def table(g: Gaussians) -> np.ndarray:
    return MatchKernel.of(g).columns(np.arange(len(g)))


# -- match probability -----------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seeds)
def test_a_match_is_the_overlap_of_the_square_roots_of_two_densities(seed):
    left, right = gaussians(seed, 1, 1), gaussians(seed + 1, 1, 1)
    laws = [norm(g.mean[0, 0], np.sqrt(g.variance[0, 0])) for g in (left, right)]
    points = sorted(float(law.mean()) for law in laws)
    overlap, _ = quad(lambda x: np.sqrt(laws[0].pdf(x) * laws[1].pdf(x)), -20, 20, points=points, limit=500)
    np.testing.assert_allclose(np.exp(log_match(left, right))[0], overlap, rtol=1e-6)


@given(seeds, st.integers(1, 12), st.integers(1, 9), tempers)
def test_the_match_kernel_is_symmetric_positive_and_one_on_its_diagonal(seed, n, width, temper):
    kernel = table(gaussians(seed, n, width).widened(temper))
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_array_equal(np.diag(kernel), 1.0)
    assert (kernel > 0).all()
    assert (kernel <= 1).all()


@given(seeds, st.integers(2, 25), st.integers(1, 8), tempers)
def test_widened_gaussians_keep_the_kernel_positive_semidefinite_at_every_temper(seed, n, width, temper):
    kernel = table(gaussians(seed, n, width).widened(temper))
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


def test_a_power_of_the_kernel_is_not_positive_semidefinite_which_is_why_variances_are_widened():
    rng = np.random.default_rng(0)
    g = Gaussians(rng.normal(size=(200, 32)), rng.uniform(0.01, 3.0, (200, 32)))
    assert np.linalg.eigvalsh(table(g) ** (1 / 32.0)).min() < -1e-3
    assert np.linalg.eigvalsh(table(g.widened(32.0))).min() > -1e-10


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_the_table_holds_the_match_of_every_two(seed, a, b, width):
    left, right = gaussians(seed, a, width), gaussians(seed + 1, b, width)
    found = log_match_table(left, right)
    for j in range(b):
        other = Gaussians(np.repeat(right.mean[[j]], a, 0), np.repeat(right.variance[[j]], a, 0))
        np.testing.assert_allclose(found[:, j], log_match(left, other), rtol=1e-12, atol=1e-12)


@given(seeds, st.integers(2, 40), st.integers(1, 40))
def test_columns_equal_the_formula_over_blocks_and_in_single_precision(seed, n, width):
    g = gaussians(seed, n, width).widened(max(width / 4, 1.0))
    wanted = np.exp(log_match_table(g, g))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.strategies.kernels.density.BLOCK", 7)
        np.testing.assert_allclose(table(g), wanted, rtol=1e-10)
        single = Gaussians(g.mean.astype(np.float32), g.variance.astype(np.float32))
        np.testing.assert_allclose(table(single), wanted, rtol=2e-4, atol=1e-6)


def test_certain_and_impossible_matches_have_finite_logarithms():
    assert np.isfinite(log_mismatch(np.array([0.0, -1e-300, -1e4]))).all()
    np.testing.assert_allclose(log_mismatch(np.array([-1e-3, -5.0])), np.log1p(-np.exp([-1e-3, -5.0])), rtol=1e-9)


def test_means_and_variances_of_different_shapes_are_refused():
    with pytest.raises(GaussiansInvalid, match=r"\(3, 2\).*\(3, 4\)"):
        Gaussians(np.zeros((3, 2)), np.ones((3, 4)))


def test_density_against_all_others_is_the_mean_of_the_kernel():
    kernel = MatchKernel.of(gaussians(0, 30, 4))
    dense = table(gaussians(0, 30, 4))
    rows = np.array([3, 7, 8, 20])
    among = dense[np.ix_(rows, rows)]
    np.testing.assert_allclose(mean_similarity(kernel, rows), (among.sum() - 4) / 12)
    everyone = np.arange(30)
    np.testing.assert_allclose(reference_density(kernel, rows, everyone), (dense[rows].sum(axis=1) - 1) / 29)


def test_samples_spread_by_the_exponential_of_what_the_code_calls_variance():
    g = gaussians(0, 5, 3)
    noise = np.random.default_rng(1).normal(size=(5, 4, 3))
    drawn = reparameterised_samples(g, noise)
    np.testing.assert_allclose((drawn - g.mean[:, None]) / noise, np.exp(g.variance)[:, None].repeat(4, 1))
    apart = np.sqrt(((drawn[:, None, :, :] - drawn[:, :, None, :]) ** 2).sum(-1) + 1e-6).reshape(5, 16)
    np.testing.assert_allclose(sampled_distances(drawn, drawn), apart, atol=1e-6)


# -- allocation ------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 25), weights, st.data())
def test_allocations_are_distinct_and_swaps_never_lower_the_objective(seed, n, weight, data):
    b = data.draw(st.integers(1, n))
    information, kernel = instance(seed, n)
    greedy = greedy_allocation(information, kernel, b, weight)
    swapped = improved(information, kernel, greedy, weight)
    for found in (greedy, swapped):
        assert len(set(found.picks.tolist())) == b
        assert ((found.picks >= 0) & (found.picks < n)).all()
        wanted = kernel.table[:, found.picks].sum(axis=1)
        wanted[found.picks] -= 1.0
        np.testing.assert_allclose(found.penalties, wanted, atol=1e-9)
    before, after = (objective(information, kernel, found.picks, weight) for found in (greedy, swapped))
    assert after >= before - 1e-12


@given(seeds, st.integers(2, 20), weights, st.data())
def test_no_single_swap_improves_what_the_swaps_end_with(seed, n, weight, data):
    b = data.draw(st.integers(1, n - 1))
    information, kernel = instance(seed, n)
    found = improved(information, kernel, greedy_allocation(information, kernel, b, weight), weight).picks
    value = objective(information, kernel, found, weight)
    for place, other in itertools.product(range(b), np.setdiff1d(np.arange(n), found)):
        changed = found.copy()
        changed[place] = other
        assert objective(information, kernel, changed, weight) <= value + 1e-8


@given(seeds, st.integers(2, 9), weights, st.integers(0, 60), st.data())
def test_the_relaxation_bounds_every_set_after_any_number_of_rounds(seed, n, weight, rounds, data):
    b = data.draw(st.integers(1, n))
    information, kernel = instance(seed, n)
    start = data.draw(st.sampled_from([None, greedy_allocation(information, kernel, b, weight)]))
    found = frank_wolfe(information, kernel, b, weight, start=start, rounds=rounds, tolerance=0.0)
    sets = itertools.combinations(range(n), b)
    best = max(objective(information, kernel, np.array(chosen), weight) for chosen in sets)
    assert found.bound >= best - 1e-9
    assert found.value <= found.bound + 1e-12
    np.testing.assert_allclose(found.shares.sum(), b)
    assert ((found.shares >= -1e-12) & (found.shares <= 1 + 1e-12)).all()
    assert len(set(found.rounded(b).tolist())) == b


@given(seeds, st.integers(2, 30), st.data())
def test_without_a_weight_the_most_informative_are_taken_and_the_bound_is_met(seed, n, data):
    b = data.draw(st.integers(1, n))
    information, kernel = instance(seed, n)
    greedy = greedy_allocation(information, kernel, b, 0.0)
    np.testing.assert_array_equal(greedy.picks, np.argsort(-information, kind="stable")[:b])
    found = frank_wolfe(information, kernel, b, 0.0, start=greedy)
    assert found.rounds == 0
    np.testing.assert_allclose(found.bound, objective(information, kernel, greedy.picks, 0.0))


@given(seeds, st.integers(2, 30))
def test_a_heavier_weight_never_makes_the_best_batch_denser(seed, n):
    information, kernel = instance(seed, min(n, 10))
    sets = [np.array(chosen) for chosen in itertools.combinations(range(len(information)), 3)] or [np.arange(2)]
    best = [max(sets, key=lambda s: objective(information, kernel, s, w)) for w in (0.1, 5.0)]
    light, heavy = (mean_similarity(kernel, chosen) for chosen in best)
    assert heavy <= light + 1e-12


@given(seeds, st.integers(1, 30), st.data())
def test_a_given_set_becomes_the_allocation_with_its_penalties(seed, n, data):
    b = data.draw(st.integers(1, n))
    information, kernel = instance(seed, n)
    greedy = greedy_allocation(information, kernel, b, 1.0)
    np.testing.assert_allclose(Allocation.of(greedy.picks, kernel).penalties, greedy.penalties, atol=1e-12)


def test_equals_are_taken_in_their_order():
    kernel = TableKernel(np.eye(6))
    picks = greedy_allocation(np.ones(6), kernel, 3, 1.0).picks
    np.testing.assert_array_equal(picks, [0, 1, 2])


@pytest.mark.parametrize("b", [0, 4])
def test_impossible_budgets_are_refused(b):
    with pytest.raises(AllocationInvalid, match=f"{b} picks from 3"):
        greedy_allocation(np.ones(3), TableKernel(np.eye(3)), b, 1.0)


def test_a_negative_weight_is_refused():
    with pytest.raises(AllocationInvalid, match="weight is -1"):
        frank_wolfe(np.ones(3), TableKernel(np.eye(3)), 1, -1.0)


# -- selector --------------------------------------------------------------------------------------------------------


def noisy_pairs(n: int = 400, width: int = 24, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(features, which pairs have exchanged texts, which images are noisy)."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(n, width))
    noisy, exchanged = rng.random(n) < 0.25, rng.random(n) < 0.1
    image = meaning + np.where(noisy, 2.0, 0.3)[:, None] * rng.normal(size=(n, width))
    rows = np.flatnonzero(exchanged)
    meaning[rows] = meaning[np.roll(rows, 1)]
    text = meaning + 0.3 * rng.normal(size=(n, width))
    features = {"image": image, "text": text}
    unit = {m: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for m, x in features.items()}
    return unit, exchanged, noisy


def settings_of(form: str = "clean", **changes) -> SelectorSettings:
    return SelectorSettings(**{"temper": 6.0, "divergence": 1 / 24, "form": form, "steps": 60, **changes})


def below(values: np.ndarray, marked: np.ndarray) -> float:
    """Share of (marked, unmarked) couples in which the marked one has the larger value."""
    return float((values[marked][:, None] > values[~marked][None]).mean())


@pytest.fixture(scope="module")
def trained():
    features, exchanged, noisy = noisy_pairs()
    return features, exchanged, noisy, Selector.trained(features, np.arange(400), settings_of(), 0)


def test_the_selector_finds_exchanged_texts_in_conflict_and_the_loss_falls(trained):
    features, exchanged, _, selector = trained
    image, text = (selector.gaussians(m, features[m]) for m in MODALITIES)
    assert below(-log_match(image, text), exchanged) > 0.85
    assert np.mean(selector.losses[-10:]) < np.mean(selector.losses[:10])


def test_every_variance_is_at_least_the_floor(trained):
    features, _, _, selector = trained
    for modality in MODALITIES:
        assert (selector.gaussians(modality, features[modality]).variance >= 1e-2).all()


def test_a_record_has_the_same_gaussian_whoever_stands_beside_it(trained):
    features, _, _, selector = trained
    whole, part = (selector.gaussians("image", features["image"][rows]) for rows in (slice(None), slice(40, 48)))
    np.testing.assert_allclose(whole.mean[40:48], part.mean, atol=1e-5)
    np.testing.assert_allclose(whole.variance[40:48], part.variance, atol=1e-5)


def test_in_the_noted_form_batch_mates_matter_and_variances_may_touch_the_floor():
    features, _, _ = noisy_pairs()
    selector = Selector.trained(features, np.arange(400), settings_of("note"), 0)
    whole, part = (selector.gaussians("image", features["image"][rows]) for rows in (slice(0, 32), slice(0, 8)))
    assert np.abs(whole.mean[:8] - part.mean).max() > 1e-4
    assert (whole.variance == np.float32(1e-2)).any()


def test_same_seed_same_selector_and_another_seed_another(trained):
    features, _, _, selector = trained
    again, other = (Selector.trained(features, np.arange(400), settings_of(), seed) for seed in (0, 1))
    for modality in MODALITIES:
        for name, value in selector.weights[modality].items():
            np.testing.assert_array_equal(value, again.weights[modality][name])
    assert np.abs(selector.weights["image"]["query"] - other.weights["image"]["query"]).max() > 1e-3


def test_a_sample_of_the_pairs_is_learned_from_when_there_are_many():
    features, _, _ = noisy_pairs()
    selector = Selector.trained(features, np.arange(400), settings_of(sample_rows=100, anchors=300), 0)
    assert selector.contexts["image"].shape == (100, 24)


@pytest.mark.parametrize("pairs", [[], [3]])
def test_without_two_pairs_the_selector_stays_as_it_was_drawn(pairs):
    features, _, _ = noisy_pairs()
    selector = Selector.trained(features, np.array(pairs, dtype=np.int64), settings_of(), 0)
    assert selector.losses == ()
    assert np.isfinite(selector.gaussians("text", features["text"]).mean).all()


@pytest.mark.parametrize("chunk", [7, 4096])
def test_the_streamed_scores_are_those_of_the_formulas(trained, chunk, monkeypatch):
    monkeypatch.setattr("backend.strategies.kernels.probabilistic_selector.CHUNK_ROWS", chunk)
    features, _, _, selector = trained
    image, text = (selector.gaussians(m, features[m]) for m in MODALITIES)
    scores = score_pool(selector, features, dimensions=24, temper=6.0)
    np.testing.assert_allclose(scores.image_size, image.sizes(), rtol=1e-5)
    np.testing.assert_allclose(scores.text_size, text.sizes(), rtol=1e-5)
    np.testing.assert_allclose(scores.log_match, log_match(image, text), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores.kernel.column(5), table(fused(image, text).widened(6.0))[:, 5], rtol=1e-3)


def test_fewer_directions_keep_most_of_the_order_of_likeness(trained):
    features, _, _, selector = trained
    whole, short = (score_pool(selector, features, dimensions=d, temper=6.0).kernel for d in (24, 16))
    assert len(short.means) == 16
    ranks = [np.argsort(np.argsort(kernel.column(5))) for kernel in (whole, short)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9


# -- prediction cover ------------------------------------------------------------------------------------------------


def predictions(seed: int, n: int, n_classes: int, *, multi_label: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if multi_label:
        return rng.random((n, n_classes))
    return rng.dirichlet(np.full(n_classes, 0.3), n)


def binary_divergences(q: np.ndarray) -> np.ndarray:
    q = np.clip(q, 1e-6, 1 - 1e-6)
    both = np.stack([q, 1 - q], axis=2)
    difference, logs = both[:, None] - both[None], np.log(both)[:, None] - np.log(both)[None]
    return 0.5 * (difference * logs).sum(axis=(2, 3))


@given(seeds, st.integers(2, 25), st.integers(2, 6))
def test_divergences_are_those_of_the_formula(seed, n, n_classes):
    p = np.clip(predictions(seed, n, n_classes, multi_label=False), 1e-6, 1 - 1e-6)
    found = PredictionCover.of(p, multi_label=False).divergences(np.arange(n), np.arange(n))
    # The authors' form takes logits; equal up to the renormalisation of what was clipped.
    np.testing.assert_allclose(found, divergence_table(np.log(p), np.log(p)), atol=1e-3)
    q = predictions(seed, n, n_classes, multi_label=True)
    found = PredictionCover.of(q, multi_label=True).divergences(np.arange(n), np.arange(n))
    np.testing.assert_allclose(found, binary_divergences(q), atol=1e-9)


@given(seeds, st.integers(3, 120), st.booleans(), st.sampled_from([1, 2, 5, 4096]), st.data())
def test_the_bounded_search_picks_what_the_plain_greedy_picks(seed, n, multi_label, working, data):
    p = predictions(seed, n, 4, multi_label=multi_label)
    anchors = np.arange(data.draw(st.integers(1, n - 1)))
    candidates = np.arange(len(anchors), n)
    k = data.draw(st.integers(0, len(candidates)))
    cover = PredictionCover.of(p, multi_label=multi_label)
    every = cover.divergences(np.arange(n), np.arange(n))
    nearest = every[:, anchors].min(axis=1)
    nearest[anchors] = -1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_cover, "WORKING_ROWS", working)
        found = cover.farthest_first(k, anchors, candidates)
    for pick, radius in zip(found.picks, found.radii, strict=True):
        # Values that rounding cannot tell apart may be taken in either order.
        np.testing.assert_allclose([nearest[pick], radius], nearest.max(), rtol=1e-9, atol=1e-12)
        nearest = np.minimum(nearest, every[:, pick])
        nearest[pick] = -1.0
    assert len(set(found.picks.tolist())) == k


def test_equal_predictions_are_picked_all_the_same():
    p = np.tile([0.2, 0.8], (50, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_cover, "WORKING_ROWS", 8)
        found = PredictionCover.of(p, multi_label=False).farthest_first(20, np.array([0]), np.arange(1, 50))
    assert len(set(found.picks.tolist())) == 20
