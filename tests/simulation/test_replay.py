"""Replays of labelled data: curves, areas, labels saved, splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import errors
from backend.simulation.pairs import Pairs
from backend.simulation.replay import Curve, aulc, labels_saved, replay
from backend.simulation.scores import accuracy_and_f1
from backend.simulation.splits import random_split

CLASSES = ["a", "b", "c", "d"]


def blobs(n: int = 240, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two modalities that both tell the class a little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    features = {}
    for name, width in (("image", 12), ("text", 8)):
        rows = rng.normal(size=(len(CLASSES), width))[labels] + rng.normal(size=(n, width))
        features[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return features, labels.astype(np.int64)


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    features, labels = blobs()
    return features, labels, np.arange(240) % 4 == 0


@pytest.mark.parametrize("strategy", ["auto", "random", "margin", "badge", "bmmal"])
@pytest.mark.parametrize("audit_share", [0.0, 0.3])
def test_picks_are_distinct_pool_items_and_counts_end_at_the_budget(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], strategy: str, audit_share: float
) -> None:
    features, labels, holdout = data
    curve = replay(
        features, labels, CLASSES, holdout, strategy, batch_size=12, budget=40, seed=1, audit_share=audit_share
    )
    assert curve.n_labels.tolist() == [12, 24, 36, 40]
    assert len(curve.picks) == len(set(curve.picks.tolist())) == 40
    assert not holdout[curve.picks].any()
    assert ((curve.accuracy >= 0) & (curve.accuracy <= 1)).all() and curve.accuracy[-1] > 0.5


def test_same_seed_same_replay_and_other_seed_another(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    features, labels, holdout = data
    first, again, other = (
        replay(features, labels, CLASSES, holdout, "badge", batch_size=10, budget=30, seed=seed) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.picks, again.picks)
    np.testing.assert_array_equal(first.accuracy, again.accuracy)
    assert first.picks.tolist() != other.picks.tolist()


def test_every_round_draws_anew(data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]) -> None:
    """With the same draws in every round, a control sample of one would always come from one place in the pool."""
    features, labels, holdout = data
    picks = replay(
        features, labels, CLASSES, holdout, "margin", batch_size=1, budget=20, seed=4, audit_share=1.0
    ).picks
    assert np.ptp(picks) > len(labels) / 2


@pytest.mark.parametrize("strategy", ["auto", "margin", "badge", "bmmal", "random"])
def test_labels_not_yet_bought_influence_nothing(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], strategy: str
) -> None:
    """Changing the truth of items outside the first two batches leaves the first three batches as they were."""
    features, labels, holdout = data
    before = replay(features, labels, CLASSES, holdout, strategy, batch_size=10, budget=30, seed=2)
    changed = (labels + 1) % len(CLASSES)
    changed[before.picks[:20]] = labels[before.picks[:20]]
    after = replay(features, changed, CLASSES, holdout, strategy, batch_size=10, budget=30, seed=2)
    np.testing.assert_array_equal(before.picks, after.picks)


def test_whole_pool_gives_the_same_end_for_every_strategy(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    features, labels, holdout = data
    ends = {
        strategy: replay(features, labels, CLASSES, holdout, strategy, batch_size=90, budget=180, seed=0).accuracy[-1]
        for strategy in ("random", "margin", "auto")
    }
    assert max(ends.values()) - min(ends.values()) <= 1 / 60  # one held-out item may sit on the boundary


def test_random_audit_of_everything_is_random_sampling(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    """With a share of 1 the strategy has nothing left to choose, so all strategies pick alike."""
    features, labels, holdout = data
    picks = [
        replay(features, labels, CLASSES, holdout, name, batch_size=10, budget=30, seed=3, audit_share=1.0).picks
        for name in ("auto", "margin")
    ]
    np.testing.assert_array_equal(*picks)


@pytest.mark.parametrize(
    "change", [{"budget": 0}, {"budget": 181}, {"batch_size": 0}, {"audit_share": 1.1}, {"audit_share": -0.1}]
)
def test_impossible_replays_are_refused(
    data: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], change: dict[str, float]
) -> None:
    features, labels, holdout = data
    with pytest.raises(errors.ConfigurationError, match=next(iter(change))):
        replay(features, labels, CLASSES, holdout, "random", **{"batch_size": 10, "budget": 30, "seed": 0, **change})  # type: ignore[arg-type]
    with pytest.raises(errors.ReplayInvalid, match="holdout"):
        replay(features, labels, CLASSES, np.zeros(240, bool), "random", batch_size=10, budget=30, seed=0)


def curve(n_labels: list[int], accuracy: list[float]) -> Curve:
    values = np.array(accuracy)
    return Curve(np.array(n_labels), values, values / 2, np.empty(0, dtype=np.int64))


def test_area_is_the_trapezoid_mean() -> None:
    assert aulc(curve([10, 20, 40], [0.2, 0.4, 0.6])) == pytest.approx((0.3 * 10 + 0.5 * 20) / 30)
    assert aulc(curve([10], [0.7])) == 0.7


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.integers(1, 50))
def test_area_lies_between_the_extremes_and_shifts_with_the_curve(values: list[float], step: int) -> None:
    counts = [step * (index + 1) for index in range(len(values))]
    area = aulc(curve(counts, values))
    assert min(values) - 1e-12 <= area <= max(values) + 1e-12
    assert aulc(curve(counts, [value + 0.5 for value in values])) == pytest.approx(area + 0.5)


def test_labels_saved_is_measured_where_randoms_end_is_reached() -> None:
    random = curve([10, 20, 30, 40], [0.3, 0.5, 0.55, 0.6])
    assert labels_saved(curve([10, 20, 30, 40], [0.4, 0.6, 0.7, 0.8]), random) == pytest.approx(0.5)
    assert labels_saved(curve([10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]), random) == 0
    assert labels_saved(random, random) == pytest.approx(0.0)
    assert 0.25 < labels_saved(curve([10, 20, 30, 40], [0.4, 0.5, 0.7, 0.8]), random) < 0.5


def test_labels_saved_counts_to_the_first_time_that_randoms_end_is_reached() -> None:
    random = curve([10, 20, 30, 40], [0.3, 0.5, 0.55, 0.6])
    # Four fifths of the way from 10 to 20 labels; the dip behind it and the second rise do not count.
    assert labels_saved(curve([10, 20, 30, 40], [0.4, 0.65, 0.5, 0.8]), random) == pytest.approx(1 - 18 / 40)


def test_macro_f1_is_that_of_the_reference_implementation() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, predicted = rng.integers(0, 5, 30), rng.integers(0, 6, 30)
        accuracy, f1 = accuracy_and_f1(truth, predicted)
        assert accuracy == (truth == predicted).mean()
        assert f1 == pytest.approx(f1_score(truth, predicted, labels=np.unique(truth), average="macro"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_split_holds_out_a_quarter_and_never_divides_a_text(seed: int) -> None:
    rng = np.random.default_rng(7)
    labels = np.repeat(np.arange(4), 60)
    groups = labels * 1000 + rng.integers(0, 45, 240)
    pairs = Pairs([str(i) for i in range(240)], [], [""] * 240, labels, CLASSES, groups, None)
    mask = random_split(pairs, seed)
    assert not set(groups[mask]) & set(groups[~mask])
    assert 0.2 < mask.mean() < 0.3
    assert (np.bincount(labels[mask], minlength=4) >= 10).all()
    np.testing.assert_array_equal(mask, random_split(pairs, seed))
