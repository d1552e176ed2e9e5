"""What any strategy can wear: class balance and a random audit share."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from backend.errors import InvalidOption, StrategyUnsuited
from backend.strategies import create_strategy
from backend.strategies.audit import aligned, control_count
from backend.strategies.class_balance import candidates_by_class, label_counts, rarest_first

seeds = st.integers(0, 2**32 - 1)
# Their first picks are the same however many are asked for, so that their batch is on their shortlist.
STEADY = ("margin", "entropy", "badge", "random", "auto")


def choose(name, pool, k, seed=0, **dress):
    return create_strategy(name, **dress).select(pool, k, np.random.default_rng(seed))


# -- class balance -----------------------------------------------------------------------------------------------


def unevenness(pool, picks) -> int:
    """Sum of squares of labels and predicted picks by class: least where the classes are most even."""
    predicted = pool.probabilities[picks].argmax(axis=1)
    return int(((label_counts(pool) + np.bincount(predicted, minlength=pool.n_classes)) ** 2).sum())


@pytest.mark.parametrize("rule", ["pcb", "tail_first"])
@pytest.mark.parametrize("name", STEADY)
def test_a_balanced_batch_is_never_less_even_over_predicted_classes_than_the_bare_one(name, rule, make_pool):
    strictly = 0
    for seed in range(12):
        pool = make_pool(n=200, n_classes=6, n_labelled=15, seed=seed)
        bare = unevenness(pool, choose(name, pool, 18, seed).indices)
        worn = unevenness(pool, choose(name, pool, 18, seed, balance=rule).indices)
        assert worn <= bare
        strictly += worn < bare
    assert strictly >= 6


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=4, max_size=4), seeds
)
def test_serving_the_rarest_class_first_is_the_most_even_batch_there_is(predicted, counts, seed):
    labels = np.array(predicted)
    k = int(np.random.default_rng(seed).integers(1, len(labels) + 1))
    candidates = [np.flatnonzero(labels == c) for c in range(4)]
    picks, before = rarest_first(candidates, np.array(counts), k)

    def unevenness_of(chosen) -> int:
        return int(((np.array(counts) + np.bincount(labels[list(chosen)], minlength=4)) ** 2).sum())

    assert len(set(picks.tolist())) == k
    assert unevenness_of(picks) == min(map(unevenness_of, itertools.combinations(range(len(labels)), k)))
    totals = np.array(counts)
    for pick, count in zip(picks, before, strict=True):
        assert totals[labels[pick]] == count
        totals[labels[pick]] += 1
    for c in range(4):
        served = [p for p in picks.tolist() if labels[p] == c]
        assert served == sorted(served) == candidates[c][: len(served)].tolist()


def test_pcb_picks_from_the_strategys_best_tenth_and_tail_first_from_the_whole_pool(make_pool):
    pool = make_pool(n=600, n_classes=8, n_labelled=100)
    ranked = choose("margin", pool, 600).indices
    best = set(ranked[:50].tolist())
    assert set(choose("margin", pool, 20, balance="pcb").indices.tolist()) <= best
    assert not set(choose("margin", pool, 20, balance="tail_first").indices.tolist()) <= best


def test_a_batch_far_below_a_tenth_of_the_pool_comes_from_its_best_tenth(make_pool):
    pool = make_pool(n=600, n_classes=12, n_labelled=100, seed=10)
    ranked, predicted = choose("margin", pool, 600).indices, pool.probabilities.argmax(axis=1)

    def from_the_best(length: int) -> list[int]:
        totals, picks = label_counts(pool), []
        for _ in range(14):
            waiting = [row for row in ranked[:length].tolist() if row not in picks]
            picks.append(min(waiting, key=lambda row: totals[predicted[row]]))  # the first of the rarest class
            totals[predicted[picks[-1]]] += 1
        return picks

    assert choose("margin", pool, 14, balance="pcb").indices.tolist() == from_the_best(50)
    assert from_the_best(46) != from_the_best(50) != from_the_best(54)


@pytest.mark.parametrize("rule", ["pcb", "tail_first"])
def test_what_a_balanced_batch_passed_over_comes_next_in_the_strategys_order(rule, make_pool):
    pool = make_pool(n=200, n_classes=6, n_labelled=30)
    ranked = choose("margin", pool, 200).indices
    worn = choose("margin", pool, 15, balance=rule)
    assert worn.queue(pool.labelled, 200)[15:].tolist() == ranked[~np.isin(ranked, worn.indices)].tolist()


def test_tail_first_takes_the_best_ranked_records_of_the_class_with_fewest_labels(make_pool):
    pool = make_pool(n=300, n_classes=4, n_labelled=60)
    counts = label_counts(pool)
    rarest = int(counts.argmin())
    predicted = pool.probabilities.argmax(axis=1)
    ranked = choose("margin", pool, 300).indices
    gap = int(np.sort(counts)[1] - counts.min())
    assert gap > 0
    picks = choose("margin", pool, gap, balance="tail_first").indices
    np.testing.assert_array_equal(picks, ranked[predicted[ranked] == rarest][:gap])


def test_each_pick_says_how_many_labels_and_picks_its_class_had(make_pool):
    pool = make_pool(n=200, n_labelled=30)
    selection = choose("margin", pool, 25, balance="pcb")
    totals = label_counts(pool)
    for pick, count in zip(selection.indices, selection.parts["class_count"], strict=True):
        label = pool.probabilities[pick].argmax()
        assert totals[label] == count
        totals[label] += 1


def test_with_several_labels_a_record_counts_for_all_it_is_predicted_to_have(make_pool):
    pool = make_pool(n=200, multi_label=True)
    assert (label_counts(pool) == (pool.labels[pool.labelled] > 0).sum(axis=0)).all()
    rows = pool.unlabelled
    member = pool.probabilities[rows] >= 0.5
    for c, positions in enumerate(candidates_by_class(pool, rows)):
        assert set(np.flatnonzero(member[:, c])) <= set(positions)
        extra = np.setdiff1d(positions, np.flatnonzero(member[:, c]))
        assert not member[extra].any()
        assert (pool.probabilities[rows[extra]].argmax(axis=1) == c).all()
    picks, before = rarest_first([np.array([0, 1]), np.array([0]), np.array([2])], np.array([0, 0, 1]), 3)
    assert picks.tolist() == [0, 1, 2]
    assert before.tolist() == [0, 1, 1]


def test_before_the_first_label_the_bare_batch_stands(make_pool):
    pool = make_pool(n_labelled=0)
    for rule in ("pcb", "tail_first"):
        np.testing.assert_array_equal(choose("auto", pool, 9, balance=rule).indices, choose("auto", pool, 9).indices)


def test_pcb_is_refused_with_several_labels_a_record_when_configured(make_pool):
    project = {"multi_label": True, "n_classes": 4, "modalities": ("image", "text")}
    with pytest.raises(StrategyUnsuited, match="tail_first"):
        create_strategy("badge", balance="pcb", audit_share=0.1).check(**project)
    with pytest.raises(StrategyUnsuited, match="tail_first"):
        choose("badge", make_pool(multi_label=True), 5, balance="pcb", audit_share=0.1)
    create_strategy("badge", balance="tail_first", audit_share=0.1).check(**project)
    with pytest.raises(StrategyUnsuited, match="'dropquery' is defined for single-choice"):
        create_strategy("dropquery", balance="tail_first").check(**project)


# -- audit share -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dress", [{}, {"balance": "pcb"}], ids=["bare", "balanced"])
def test_controls_are_the_same_uniform_draw_whatever_the_strategy(dress, make_pool):
    pool = make_pool(n=80, n_labelled=20)
    seen = np.zeros(80)
    for seed in range(300):
        by_strategy = []
        for name in ("margin", "random"):
            found = choose(name, pool, 6, seed, audit_share=0.5, **dress)
            drawn = found.parts["control"] == 1
            by_strategy.append((np.flatnonzero(drawn).tolist(), found.indices[drawn].tolist()))
        assert by_strategy[0] == by_strategy[1]
        seen[by_strategy[0][1]] += 1
    assert (seen[pool.labelled] == 0).all()
    assert seen.sum() == 900
    assert chisquare(seen[~pool.labelled]).pvalue > 1e-3


def test_controls_stand_anywhere_in_the_batch(make_pool):
    pool = make_pool(n=80)
    places = np.zeros(5)
    for seed in range(600):
        places += choose("margin", pool, 5, seed, audit_share=0.2).parts["control"]
    assert places.sum() == 600
    assert chisquare(places).pvalue > 1e-3


@pytest.mark.parametrize("name", ["margin", "badge", "auto"])
def test_the_rest_of_the_batch_is_the_strategys_first_choice_in_its_order(name, make_pool):
    pool = make_pool(n=100)
    for seed in range(10):
        found = choose(name, pool, 10, seed, audit_share=0.3)
        drawn = found.parts["control"] == 1
        rng = np.random.default_rng(seed)
        rng.choice(pool.unlabelled, control_count(0.3, 10, rng), replace=False)
        [rng.integers(0, 8 + j) for j in range(3)]
        own = create_strategy(name).select(pool, 10, rng)
        expected = [i for i in own.indices.tolist() if i not in found.indices[drawn]][:7]
        assert found.indices[~drawn].tolist() == expected


def test_what_only_the_strategy_could_tell_is_told_of_its_own_picks(make_pool):
    pool = make_pool(n=100)
    found = choose("margin", pool, 10, audit_share=0.3)
    drawn = found.parts["control"] == 1
    assert np.isnan(found.parts["score"][drawn]).all()
    bare = choose("margin", pool, 60)
    score_of = dict(zip(bare.indices.tolist(), bare.parts["score"].tolist(), strict=True))
    assert found.parts["score"][~drawn].tolist() == [score_of[i] for i in found.indices[~drawn].tolist()]
    assert np.isfinite(found.parts["uncertainty"]).all()


@given(st.floats(0, 0.999), st.integers(2, 50), seeds)
def test_of_several_picks_one_at_least_is_left_to_the_strategy(share, size, seed):
    count = control_count(share, size, np.random.default_rng(seed))
    assert 0 <= count <= size - 1
    assert count in {min(int(share * size), size - 1), min(int(share * size) + 1, size - 1)}


def test_the_share_holds_on_average_for_batches_too_small_for_it_and_1_draws_everything():
    rng = np.random.default_rng(0)
    counts = [control_count(0.1, 4, rng) for _ in range(5000)]
    assert set(counts) == {0, 1}
    assert np.mean(counts) == pytest.approx(0.4, abs=0.03)
    assert control_count(1.0, 7, rng) == 7


@pytest.mark.parametrize("name", ["margin", "badge", "auto"])
def test_a_batch_of_one_is_a_control_as_often_as_the_share_says(name, make_pool):
    pool = make_pool(n=60)
    drawn = 0
    for seed in range(150):
        found = choose(name, pool, 1, seed, audit_share=0.3)
        assert len(found.indices) == 1
        [control] = found.parts["control"]
        if control:
            rng = np.random.default_rng(seed)
            assert found.indices[0] == rng.choice(pool.unlabelled, control_count(0.3, 1, rng), replace=False)[0]
        drawn += int(control)
    assert binomtest(drawn, 150, 0.3).pvalue > 1e-3
    assert control_count(0.3, 0, np.random.default_rng(0)) == 0


def test_parts_follow_their_picks():
    found = aligned({"a": np.array([1.0, 2.0, 3.0])}, np.array([2, -1, 0]))
    np.testing.assert_array_equal(found["a"], [3.0, np.nan, 1.0])


# -- asking for them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"balance": "x"}, {"balance": None}, {"audit_share": 1.1}, {"audit_share": -0.1}, {"audit_share": "a"},
              {"audit_share": True}, {"audit_share": float("nan")}]
)  # fmt: skip
def test_dresses_that_do_not_exist_are_refused_when_configured(wrong):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        create_strategy("margin", **wrong)


def test_nothing_worn_is_the_bare_strategy():
    assert create_strategy("margin", balance="none", audit_share=0) == create_strategy("margin")
