"""Streams of items, and how many candidates to show."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backend.errors import InvalidOption, StreamStateInvalid
from backend.strategies import create_strategy
from backend.strategies.pairing import (
    MODALITIES,
    ItemStream,
    conformal_candidates,
    farthest_of,
    item_figures,
)


def test_a_garbled_state_is_refused():
    for state in ({}, {"size": 3, "keep": 0, "waiting": []}, {"rate": "x"}):
        with pytest.raises(StreamStateInvalid, match="start a new stream"):
            ItemStream.from_state(state)


def test_what_is_kept_is_farthest_from_the_pairs_and_was_not_asked_about(make_pairs):
    pairs = make_pairs(known=5)
    found = create_strategy("three_step").select(pairs, 6, np.random.default_rng(0))
    kept = farthest_of(pairs, found, 10)
    assert sum(map(len, kept.values())) == 10
    distance = {m: 1 - (pairs.joint[m] @ pairs.joint[m][:5].T).max(axis=1) for m in MODALITIES}
    for modality in MODALITIES:
        waiting = np.setdiff1d(np.arange(5, pairs.size(modality)), found.items(modality))
        assert set(kept[modality]) <= set(waiting)
        others = np.setdiff1d(waiting, kept[modality])
        if len(kept[modality]):
            assert distance[modality][kept[modality]].min() >= distance[modality][others].max()
    assert {m: len(rows) for m, rows in farthest_of(pairs, found, 0).items()} == {"image": 0, "text": 0}


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_what_an_arriving_item_is_judged_by_is_what_a_round_would_say(distance, make_pairs):
    pairs = make_pairs()
    found = create_strategy("three_step", core_size=1000, distance=distance).select(
        pairs, 9, np.random.default_rng(0)
    )
    first = found.parts["coreset"][0]
    cover, margin = item_figures(pairs, found.modality, np.array([first]), distance=distance)
    np.testing.assert_allclose(cover, found.parts["cover"][:1], atol=1e-6)
    np.testing.assert_array_equal(margin, found.parts["margin"][:1])
    cold, _ = item_figures(make_pairs(known=0), "image", np.arange(3))
    assert np.isinf(cold).all()


def arrivals(count: int, dependence: float, seed: int = 0):
    """Items with covers and margins that rise together, or one as the other falls, or neither."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, count))
    cover, margin = first, dependence * first + np.sqrt(1 - dependence**2) * second
    return zip(rng.choice(MODALITIES, count).tolist(), np.exp(cover), np.exp(margin), strict=True)


@pytest.mark.parametrize("dependence", [-0.8, 0.0, 0.6])
@pytest.mark.parametrize("by_modality", [True, False])
def test_the_rate_is_kept_whatever_covers_and_margins_have_to_do_with_each_other(dependence, by_modality):
    stream = ItemStream(0.05, capacity=300, by_modality=by_modality)
    asked = [stream.offer(*item) for item in arrivals(8000, dependence)]
    assert np.mean(asked[2000:]) == pytest.approx(0.05, rel=0.25)


def test_what_is_asked_about_is_far_and_narrow():
    stream = ItemStream(0.05, capacity=300, by_modality=False)
    items = list(arrivals(6000, 0.0))
    asked = np.array([stream.offer(*item) for item in items])[1000:]
    cover, margin = (np.array([item[place] for item in items])[1000:] for place in (1, 2))
    assert cover[asked].min() > np.median(cover[~asked])
    assert margin[asked].max() < np.median(margin[~asked])


def test_the_worse_covered_modality_is_asked_about():
    stream = ItemStream(0.05, capacity=300)
    rng = np.random.default_rng(0)
    asked = dict.fromkeys(MODALITIES, 0)
    for _ in range(4000):
        modality = str(rng.choice(MODALITIES))
        cover = rng.random() * (3.0 if modality == "text" else 1.0)
        asked[modality] += stream.offer(modality, cover, rng.random())
    assert asked["text"] > 20 * asked["image"] / 3


def test_restarts_change_no_decision():
    plain, stored = (ItemStream(0.1, factor=3.0, capacity=60, seed=4) for _ in range(2))
    for item in arrivals(700, 0.3):
        assert plain.offer(*item) == stored.offer(*item)
        stored = ItemStream.from_state(json.loads(json.dumps(stored.state())))
    assert plain.state() == stored.state()


def test_a_stream_refuses_what_it_cannot_judge():
    for wrong in ({"rate": 0.0}, {"rate": 0.3, "factor": 4.0}, {"rate": 0.1, "factor": 0.5}):
        with pytest.raises(InvalidOption, match="at most 1 / factor"):
            ItemStream(**wrong)
    with pytest.raises(InvalidOption, match="capacity is 10"):
        ItemStream(0.1, capacity=10)
    for item in (("image", np.inf, 0.1), ("image", 0.1, np.nan), ("audio", 0.1, 0.1)):
        with pytest.raises(InvalidOption, match="finite numbers"):
            ItemStream(0.1).offer(*item)


def test_the_number_of_candidates_is_the_conformal_quantile_of_the_audit_ranks():
    found = conformal_candidates([1, 1, 2, 2, 3, 4, 5, 9, 30], 0.2, 50)
    # ceil(10 * 0.8) = 8th smallest.
    assert (found.k, found.promised, found.audited) == (9, True, 9)
    assert found.coverage == pytest.approx(8 / 9)
    assert np.isnan(found.acquired_coverage)


def test_too_few_answers_or_ranks_out_of_reach_promise_nothing():
    assert conformal_candidates([], 0.1, 12).k == 12
    for ranks in ([1, 1, 1], [1, 2, np.inf, np.inf, np.inf, np.inf], [1, 2, 80, 90, 95, 99]):
        found = conformal_candidates(ranks, 0.2, 50)
        assert (found.k, found.promised) == (50, False)
    found = conformal_candidates([1.0] * 20, 0.1, 50, acquired=[1, 4, np.inf])
    assert (found.k, found.promised, found.acquired) == (1, True, 3)
    assert found.acquired_coverage == pytest.approx(1 / 3)


@pytest.mark.parametrize("alpha", [0.1, 0.3])
@pytest.mark.parametrize("n", [9, 40])
def test_a_new_random_query_finds_its_truth_as_often_as_promised(alpha, n):
    rng = np.random.default_rng(0)
    trials = 3000
    ranks = rng.geometric(0.08, size=(trials, n + 1))
    hits = [row[-1] <= conformal_candidates(row[:-1], alpha, 10**6).k for row in ranks]
    # Three standard errors of chance below the promise.
    assert np.mean(hits) >= 1 - alpha - 3 * np.sqrt(alpha * (1 - alpha) / trials)


def test_ranks_and_shares_that_make_no_sense_are_refused():
    for ranks, alpha, most in (([0], 0.1, 5), ([1], 0.0, 5), ([1], 1.0, 5), ([1], 0.1, 0), ([np.nan], 0.1, 5)):
        with pytest.raises(InvalidOption):
            conformal_candidates(ranks, alpha, most)
    with pytest.raises(InvalidOption, match="acquired hold 0"):
        conformal_candidates([1], 0.1, 5, acquired=[0])
