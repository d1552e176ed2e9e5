"""ASCMR on pairs whose disturbances are known, and the two-branch baselines against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from backend.strategies import Pool, create_strategy
from backend.strategies.kernels.allocation import frank_wolfe, improved


def pairs(n: int = 400, *, width: int = 16, n_labelled: int = 30, exchanged: float = 0.0, seed: int = 0) -> Pool:
    """Pairs in 8 clusters, the first of which holds half of all and is noisy; a share have one another's texts."""
    rng = np.random.default_rng(seed)
    cluster = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 8, n))
    meaning = 2.0 * rng.normal(size=(8, width))[cluster] + rng.normal(size=(n, width))
    noise = np.where(cluster == 0, 1.5, 0.3)[:, None]
    image = meaning + noise * rng.normal(size=(n, width))
    rows = np.flatnonzero(rng.random(n) < exchanged)
    meaning[rows] = meaning[rng.permutation(rows)]
    text = meaning + noise * rng.normal(size=(n, width))
    features = {
        m: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        for m, x in {"image": image, "text": text}.items()
    }
    labelled = np.zeros(n, dtype=bool)
    labelled[rng.permutation(n)[:n_labelled]] = True
    return Pool(features, labelled, np.where(labelled, cluster, -1), 8)


def pick(pool: Pool, name: str = "ascmr", k: int = 20, seed: int = 0, **options):
    if name == "ascmr":
        # Enough for what is tested, and quick.
        options = {"steps": 25, **options}
    return create_strategy(name, **options).select(pool, k, np.random.default_rng(seed))


def test_without_a_weight_on_density_the_most_informative_are_picked():
    parts = pick(pairs(), density_weight=0.0).parts
    np.testing.assert_array_equal(parts["rank_alone"], np.arange(1, 21))
    np.testing.assert_array_equal(parts["penalty"], 0.0)
    np.testing.assert_allclose(parts["batch_density"], parts["top_density"])
    np.testing.assert_allclose(parts["gap"], 0.0, atol=1e-12)


def test_a_weight_on_density_makes_the_batch_less_alike_and_takes_it_from_more_regions():
    top, spread = (pick(pairs(), density_weight=w).parts for w in (0.0, 5.0))
    assert spread["batch_density"][0] < 0.9 * top["batch_density"][0]
    assert len(set(spread["region"])) >= len(set(top["region"]))
    assert spread["worth"].mean() <= top["worth"].mean()


def test_the_penalty_and_the_density_told_are_of_one_another():
    parts = pick(pairs(), density_weight=3.0).parts
    # The penalties of all picks are twice the weight times the density of the batch.
    np.testing.assert_allclose(parts["penalty"].sum(), 2 * 3.0 * parts["batch_density"][0], rtol=1e-5)


def test_regions_account_for_the_whole_batch():
    parts = pick(pairs()).parts
    cells, first = np.unique(parts["region"], return_index=True)
    np.testing.assert_allclose(parts["region_picks"][first].sum(), 1.0)
    assert (parts["region_share"][first] > 0).all()
    assert parts["region_share"][first].sum() <= 1 + 1e-9
    for cell, share in zip(cells, parts["region_picks"][first], strict=True):
        assert share == pytest.approx((parts["region"] == cell).mean())


def test_the_nearest_earlier_pick_is_named():
    parts = pick(pairs()).parts
    assert parts["nearest_pick"][0] == -1
    assert (parts["nearest_pick"][1:] < np.arange(1, 20)).all()
    assert (parts["nearest_pick"][1:] >= 0).all()
    assert (parts["nearest_similarity"][1:] > 0).all()


def test_pairs_in_most_conflict_are_left_out():
    pool = pairs(exchanged=0.1)
    free, capped = (pick(pool, conflict_cap=cap, alpha=0.0, density_weight=0.0).parts for cap in (0.0, 0.3))
    assert free["conflict"].min() > 0.9
    assert capped["conflict"].max() <= 0.71


def test_pairs_left_out_come_last_and_are_picked_when_nothing_else_is_left():
    pool = pairs(n=60, n_labelled=10)
    for k in (10, 50):
        selection = pick(pool, k=k, conflict_cap=0.5)
        assert len(set(selection.indices.tolist())) == k
    order = pick(pool, k=10, conflict_cap=0.5).queue(pool.labelled, 50)
    conflict = pick(pool, k=50, conflict_cap=0.0)
    by_row = np.full(60, np.nan)
    by_row[conflict.indices] = conflict.parts["conflict"]
    assert by_row[order[:25]].max() <= by_row[order[25:]].min() + 1e-12


def test_without_weight_on_spread_the_conflict_decides_and_the_other_way_round():
    pool = pairs(exchanged=0.1)
    options = {"density_weight": 0.0, "conflict_cap": 0.0}
    conflict = pick(pool, alpha=0.0, **options).parts["conflict"]
    assert (np.diff(conflict) <= 1e-12).all()
    spread = pick(pool, alpha=1.0, **options).parts
    assert (spread["image_uncertainty"] + spread["text_uncertainty"]).min() > 1.2


@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_swaps_and_frank_wolfe_are_no_worse_than_greedy_and_none_is_above_the_bound(weight):
    pool = pairs()
    values, bounds = {}, {}
    for solver in ("greedy", "swap", "frank_wolfe", "auto"):
        parts = pick(pool, solver=solver, density_weight=weight).parts
        values[solver] = parts["worth"].sum() - weight * parts["batch_density"][0]
        bounds[solver] = values[solver] + parts["gap"][0]
    assert values["swap"] >= values["greedy"] - 1e-6
    assert values["auto"] == values["swap"]
    assert min(bounds.values()) >= max(values.values()) - 1e-6


def test_the_gap_is_told_without_any_round_where_rounds_would_cost_too_much(monkeypatch):
    asked = []

    def spy(*arguments, **options):
        asked.append(options["rounds"])
        return frank_wolfe(*arguments, **options)

    monkeypatch.setattr("backend.strategies.ascmr.frank_wolfe", spy)
    tight = pick(pairs()).parts["gap"][0]
    monkeypatch.setattr("backend.strategies.ascmr.CERTIFICATE_NUMBERS", 10)
    loose = pick(pairs()).parts["gap"][0]
    assert asked[0] > 0
    assert asked[1] == 0
    assert 0 <= tight <= loose


def test_large_batches_of_large_pools_are_chosen_without_swaps(monkeypatch):
    swapped = []

    def spy(worth, kernel, batch, weight):
        swapped.append(improved(worth, kernel, batch, weight))
        return swapped[-1]

    monkeypatch.setattr("backend.strategies.ascmr.improved", spy)
    pick(pairs())
    assert len(swapped) == 1
    monkeypatch.setattr("backend.strategies.ascmr.SWAP_NUMBERS", 10)
    plain = pick(pairs()).indices
    assert len(swapped) == 1
    np.testing.assert_array_equal(plain, pick(pairs(), solver="greedy").indices)
    pick(pairs(), solver="swap")
    assert len(swapped) == 2


def test_only_the_most_informative_are_candidates_and_what_that_may_lose_is_told():
    pool = pairs()
    whole = pick(pool, density_weight=0.2)
    np.testing.assert_array_equal(whole.parts["left_out_gain"], 0.0)
    few = pick(pool, density_weight=0.2, candidates=100)
    assert few.parts["rank_alone"].max() <= 100
    # What is told bounds what every exchange with a pair that was no candidate would gain.
    heavy = pick(pool, density_weight=50.0, candidates=100)
    assert heavy.parts["left_out_gain"][0] > 0
    order = heavy.queue(pool.labelled, len(pool.unlabelled))
    every = pick(pool, k=len(pool.unlabelled), density_weight=0.0, conflict_cap=0.0)
    information = np.full(len(pool), np.nan)
    information[every.indices] = every.parts["worth"]
    assert information[order[100:355]].max() <= information[order[:100]].min() + 1e-12


def test_the_temper_used_is_told():
    assert set(pick(pairs()).parts["temper"]) == {4.0}
    assert set(pick(pairs(), temper=2.5).parts["temper"]) == {2.5}
    assert set(pick(pairs(), compat="note").parts["temper"]) == {1.0}


def test_as_noted_the_pairs_in_most_conflict_are_picked_and_density_is_taken_in_all_dimensions():
    pool = pairs()
    # With T = 1 most p underflow. Without lengths and density the score is 1 - p: the worst matches come first.
    parts = pick(pool, compat="note", temper=8.0, alpha=0.0, density_weight=0.0).parts
    np.testing.assert_allclose(np.sort(parts["conflict"]), 1 - (np.arange(20)[::-1] + 0.5) / len(pool.unlabelled))
    for options in ({"conflict_cap": 0.5}, {"dimensions": 2}):
        np.testing.assert_array_equal(pick(pool, compat="note", **options).indices, pick(pool, compat="note").indices)


def test_labels_are_not_looked_at():
    pool = pairs()
    other = Pool(pool.features, pool.labelled, np.where(pool.labelled, 0, -1), 8)
    np.testing.assert_array_equal(pick(pool).indices, pick(other).indices)


def test_a_pair_without_a_text_has_no_conflict_and_an_empty_one_is_not_informative():
    pool = pairs(n_labelled=0 + 5)
    features = {m: x.copy() for m, x in pool.features.items()}
    features["text"][:150] = 0
    features["image"][:60] = 0
    gaps = Pool(features, pool.labelled, pool.labels, 8)
    selection = pick(gaps, k=340, solver="greedy", density_weight=0.0, conflict_cap=0.0)
    rows = selection.indices
    np.testing.assert_array_equal(selection.parts["conflict"][rows < 150], 0.5)
    np.testing.assert_array_equal(selection.parts["text_uncertainty"][rows < 150], 0.0)
    np.testing.assert_array_equal(selection.parts["worth"][rows < 60], 0.0)
    assert (selection.parts["worth"][(rows >= 60) & (rows < 150)] > 0).any()


# -- baselines -------------------------------------------------------------------------------------------------------


def test_cross_modal_similarity_picks_the_smallest_cosines():
    pool = pairs(exchanged=0.1)
    cosines = (pool.features["image"] * pool.features["text"]).sum(axis=1)
    free = pool.unlabelled
    wanted = free[np.argsort(cosines[free])[:20]]
    np.testing.assert_array_equal(pick(pool, "cross_modal_similarity").indices, wanted)


def test_query_bank_picks_the_smallest_inverted_softmax():
    pool = pairs(exchanged=0.1)
    image, text = (pool.features[m].astype(np.float64) for m in ("image", "text"))
    known = pool.labelled
    score = 2 * (image * text).sum(axis=1)
    for of, bank in ((image, text), (text, image)):
        score -= np.log(np.exp(20.0 * of @ bank[known].T).mean(axis=1)) / 20.0
    free = pool.unlabelled
    wanted = free[np.argsort(score[free])[:20]]
    np.testing.assert_array_equal(pick(pool, "query_bank").indices, wanted)


def test_a_hub_is_found_out_by_the_query_bank_and_not_by_its_cosine():
    pool = pairs(width=32)
    features = {m: x.copy() for m, x in pool.features.items()}
    hub = int(pool.unlabelled[0])
    # An image in the middle of the labelled texts, with a text that is no nearer to it than theirs are.
    middle = features["text"][pool.labelled].mean(axis=0)
    features["image"][hub] = middle / np.linalg.norm(middle)
    features["text"][hub] = features["text"][np.flatnonzero(pool.labelled)[0]]
    changed = Pool(features, pool.labelled, pool.labels, 8)
    places = [
        int(np.flatnonzero(pick(changed, name, k=len(pool.unlabelled)).indices == hub)[0])
        for name in ("query_bank", "cross_modal_similarity")
    ]
    assert places[0] < places[1]


def test_a_bank_of_fewer_rows_is_a_sample_and_the_same_for_the_same_seed():
    pool = pairs()
    first, again = (pick(pool, "query_bank", bank_rows=5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert np.abs(first.parts["hubness"] - pick(pool, "query_bank").parts["hubness"]).max() > 0
