"""What is told about a pick is computed when it is looked at, about the pool as it was."""

from __future__ import annotations

import numpy as np
import pytest

from backend.learners import LateFusionHead
from backend.strategies import Pool, create_strategy, explain
from tests.reference import dense


def pool(labelled: np.ndarray) -> Pool:
    rng = np.random.default_rng(0)
    features = {name: rng.normal(size=(40, 6)).astype(np.float32) for name in ("image", "text")}
    labels = np.where(labelled, np.arange(40) % 3, -1)
    head = LateFusionHead.fit(features, labels, n_classes=3, calibrate=False)
    return Pool.from_head(features, labels, labelled, head, n_classes=3)


def test_a_selection_nobody_asks_about_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = create_strategy("margin").select(pool(np.arange(40) < 9), 5, np.random.default_rng(0))
    assert set(chosen.parts) == {"novelty", "missing", "uncertainty", "disagreement", "score"}
    monkeypatch.setattr(explain, "_novelty", lambda *_: pytest.fail("novelty was computed"))
    assert len(chosen.parts) == 5 and chosen.parts["score"].shape == (5,) and not chosen.parts["missing"].any()
    with pytest.raises(KeyError):
        chosen.parts["nothing of the kind"]


def test_labels_given_later_change_nothing_of_what_is_told() -> None:
    labelled = np.arange(40) < 9
    before, after = (create_strategy("margin").select(pool(labelled), 5, np.random.default_rng(0)) for _ in range(2))
    first = {name: values.copy() for name, values in before.parts.items()}
    data = pool(labelled)
    later = create_strategy("margin").select(data, 5, np.random.default_rng(0))
    data.labelled[later.indices] = True
    np.testing.assert_array_equal(before.indices, later.indices)
    for name, values in later.parts.items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)
    assert set(after.parts) == set(first)


def test_what_is_told_of_a_pick_is_where_it_stands_in_the_pool(make_pool) -> None:
    def some_absent(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        features["image"][:40] = 0
        features["text"][40:60] = 0
        return features

    data = make_pool(n=150, n_labelled=20, change=some_absent)
    chosen = create_strategy("random").select(data, 60, np.random.default_rng(0))
    picks, free = chosen.indices, data.unlabelled

    def percentile(values: np.ndarray) -> np.ndarray:
        below, level = (
            compare(values[free][None], values[picks, None]).mean(axis=1) for compare in (np.less, np.isclose)
        )
        return below + level / 2

    z = dense.centred(data, among=free)
    distance = dense.apart(z, z[data.labelled]).min(axis=1)
    present = np.stack([data.features[name].any(axis=1) for name in ("image", "text")])
    alone = [data.head.unimodal_probabilities(data.features, name).argmax(axis=1) for name in ("image", "text")]
    expected = {
        "uncertainty": percentile(dense.margin(data.probabilities)),
        "novelty": percentile(distance),
        "missing": ~present.all(axis=0)[picks],
        "disagreement": ((alone[0] != alone[1]) & present.all(axis=0))[picks],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(chosen.parts[name], values, atol=0.01, err_msg=name)
        assert len(np.unique(values)) > 1
