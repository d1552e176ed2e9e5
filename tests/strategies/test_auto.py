"""The default strategy: its recipe, and what sampling above its threshold must not break."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from backend.strategies import Pool, create_strategy
from tests.reference import dense

SAMPLED = {"exact_below": 0, "sample_rows": 150}


def recipe(pool: Pool, k: int, width: float, weight: float, rarity: float) -> list[int]:
    """The rule written out densely in float64 and summed over the whole pool, labelled rows too."""
    z, p = dense.centred(pool), pool.probabilities.astype(float)
    kernel = np.exp(-(dense.apart(z, z) + weight * dense.apart(np.sqrt(p), np.sqrt(p))) / width)
    counts = np.array([(pool.labels[pool.labelled] == c).sum() for c in range(p.shape[1])])
    u = dense.margin(p) * (p / (counts + 1.0) ** rarity).sum(axis=1)
    return dense.greedy_cover(kernel, u, pool.labelled, k)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"prediction_weight": 0.0, "rarity": 0.0}, {"kernel_width": 2.0, "prediction_weight": 3.0, "rarity": 1.0}],
)
def test_picks_follow_the_formula_to_the_letter(make_pool, seed, options):
    def some_missing(features):
        features["image"][:30] = 0
        return features

    pool = make_pool(n=250, n_classes=6, n_labelled=25, seed=seed, change=some_missing)
    found = create_strategy("auto", **options).select(pool, 30, np.random.default_rng(0))
    asked = {"kernel_width": 1.0, "prediction_weight": 0.5, "rarity": 0.5} | options
    assert found.indices.tolist() == recipe(pool, 30, *asked.values())
    assert found.parts["gain"][0] == 1.0
    assert (np.diff(found.parts["gain"]) <= 1e-5).all()


def test_with_several_labels_picks_follow_the_mean_margin_and_the_features_alone(make_pool):
    pool = make_pool(n=250, n_classes=6, n_labelled=25, multi_label=True)
    z, u = dense.centred(pool), (1 - np.abs(2 * pool.probabilities.astype(float) - 1)).mean(axis=1)
    expected = dense.greedy_cover(np.exp(-dense.apart(z, z)), u, pool.labelled, 30)
    assert create_strategy("auto").select(pool, 30, np.random.default_rng(0)).indices.tolist() == expected


def test_of_two_records_equally_uncertain_the_one_of_a_rarer_class_comes_first(make_pool):
    pool = make_pool(n=60, n_classes=4, n_labelled=20)
    labels = np.where(np.arange(60) % 10, 0, 2)  # nine labels of class 0 for each of class 2
    common, rare = pool.unlabelled[:2]
    probabilities = np.tile(np.float32([1, 0, 0, 0]), (60, 1))
    probabilities[common], probabilities[rare] = (0.6, 0.4, 0, 0), (0, 0, 0.6, 0.4)
    pool = dataclasses.replace(pool, labels=labels, probabilities=probabilities)
    # Far apart, so that each covers itself alone.
    ranked = create_strategy("auto", kernel_width=1e-3).select(pool, 2, np.random.default_rng(0)).indices.tolist()
    assert ranked == [rare, common]


@pytest.mark.parametrize("sampled", [{}, SAMPLED])
def test_the_reserve_is_what_a_larger_batch_would_have_been(make_pool, sampled):
    pool = make_pool(n=900, n_classes=6, n_labelled=25)
    strategy = create_strategy("auto", **sampled)
    small = strategy.select(pool, 10, np.random.default_rng(0))
    large = strategy.select(pool, 30, np.random.default_rng(0))
    np.testing.assert_array_equal(small.queue(pool.labelled, 30), large.indices)
    following = small.utilities[large.indices[10:]]
    assert (np.diff(following) < 0).all()
    assert following.min() > np.delete(small.utilities, large.queue(pool.labelled, 75)).max()


@pytest.mark.parametrize(("batch", "joint"), [(10, 200), (60, 300)])
def test_the_reserve_is_chosen_with_the_batch_up_to_200_records_or_5_batches(make_pool, batch, joint):
    pool = make_pool(n=900, n_classes=6, n_labelled=25)
    strategy = create_strategy("auto")
    queue = strategy.select(pool, batch, np.random.default_rng(0)).queue(pool.labelled, joint)
    np.testing.assert_array_equal(queue, strategy.select(pool, joint, np.random.default_rng(0)).indices)


def test_the_next_in_the_reserve_are_not_copies_of_one_record(make_pool):
    def copied(features):
        return {name: np.concatenate([np.repeat(rows[:1], 40, axis=0), rows[40:]]) for name, rows in features.items()}

    pool = make_pool(n=300, n_labelled=20, change=copied)
    queue = create_strategy("auto").select(pool, 5, np.random.default_rng(0)).queue(pool.labelled, 100)
    assert (queue < 40).sum() <= 1


def test_two_records_that_look_alike_but_are_told_apart_are_both_picked(make_pool):
    pool = make_pool(n=60, n_classes=2, n_labelled=10)
    twin, other = pool.unlabelled[:2]
    features = {name: rows.copy() for name, rows in pool.features.items()}
    for rows in features.values():
        rows[other] = rows[twin]
    # A linear head would not tell copies apart; this is about what the choice makes of it.
    probabilities = np.tile(np.float32([0.99, 0.01]), (60, 1))
    probabilities[twin], probabilities[other] = (0.6, 0.4), (0.1, 0.9)
    pool = dataclasses.replace(pool, features=features, probabilities=probabilities)
    first = {}
    for weight in (0.0, 5.0):
        strategy = create_strategy("auto", prediction_weight=weight)
        first[weight] = set(strategy.select(pool, 2, np.random.default_rng(0)).indices.tolist())
    assert {int(twin), int(other)} == first[5.0] != first[0.0]


def test_picks_do_not_depend_on_the_seed_nor_on_the_number_of_blas_threads(make_pool):
    pool = make_pool(n=900, n_classes=6, n_labelled=25)
    found = []
    for threads, seed in ((1, 0), (2, 1)):
        with threadpool_limits(threads):
            found.append(create_strategy("auto").select(pool, 40, np.random.default_rng(seed)).indices.tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("k", [1, 20, 200])
def test_sampled_form_is_sound_and_ranks_the_whole_pool(make_pool, k):
    pool = make_pool(n=900, n_classes=6, n_labelled=25)
    strategy = create_strategy("auto", **SAMPLED)
    found = strategy.select(pool, k, np.random.default_rng(0))
    assert len(set(found.indices.tolist())) == k
    assert not pool.labelled[found.indices].any()
    assert np.isfinite(found.utilities).all()
    assert sorted(found.queue(pool.labelled, 900).tolist()) == pool.unlabelled.tolist()
    again = strategy.select(pool, k, np.random.default_rng(0))
    np.testing.assert_array_equal(found.utilities, again.utilities)


def test_a_sample_as_large_as_the_pool_is_the_exact_form(make_pool):
    pool = make_pool(n=300, n_classes=6, n_labelled=25)
    exact = create_strategy("auto").select(pool, 20, np.random.default_rng(0))
    every = create_strategy("auto", exact_below=0, sample_rows=20_000)
    assert every.select(pool, 20, np.random.default_rng(0)).indices.tolist() == exact.indices.tolist()


def test_a_sample_holds_at_least_four_records_a_pick(make_pool):
    pool = make_pool(n=425, n_classes=6, n_labelled=25)
    exact = create_strategy("auto").select(pool, 100, np.random.default_rng(0))
    small = create_strategy("auto", exact_below=0, sample_rows=100)
    # Four times the batch are all 400 that may be picked.
    assert small.select(pool, 100, np.random.default_rng(0)).indices.tolist() == exact.indices.tolist()


def test_a_rough_sample_still_covers_nearly_as_much_as_the_exact_form(make_pool):
    pool = make_pool(n=2000, n_classes=8, n_labelled=20)

    def covered(indices: np.ndarray) -> float:
        blocks = [z - z.mean(axis=0) for z in pool.features.values()]
        z = np.concatenate([b / np.linalg.norm(b, axis=1, keepdims=True) for b in blocks], axis=1)
        top = np.sort(pool.probabilities, axis=1)
        anchors = np.concatenate([np.flatnonzero(pool.labelled), indices])
        d2 = 2 * len(blocks) - 2 * z @ z[anchors].T
        return float(((1 - top[:, -1] + top[:, -2]) * np.exp(-d2).max(axis=1)).sum())

    nothing = covered(np.empty(0, dtype=np.int64))
    exact = covered(create_strategy("auto").select(pool, 20, np.random.default_rng(0)).indices) - nothing
    rough_strategy = create_strategy("auto", exact_below=0, sample_rows=500)
    rough = covered(rough_strategy.select(pool, 20, np.random.default_rng(0)).indices) - nothing
    random = covered(create_strategy("random").select(pool, 20, np.random.default_rng(0)).indices) - nothing
    assert rough > 0.9 * exact
    assert rough > random + 0.7 * (exact - random)


def test_without_any_uncertainty_it_is_plain_coverage(make_pool):
    pool = make_pool(n=200, relabel=lambda y: np.where(y >= 0, 2, -1))
    assert (pool.probabilities.max(axis=1) == 1).all()
    found = create_strategy("auto").select(pool, 10, np.random.default_rng(0))
    assert (found.parts["gain"] > 0).all()
    assert found.indices.tolist() != pool.unlabelled[:10].tolist()
