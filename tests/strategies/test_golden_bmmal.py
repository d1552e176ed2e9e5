"""Equality with what the BMMAL authors' unmodified code produced (golden/bmmal_*.npz)."""

from __future__ import annotations

import numpy as np
import pytest

from backend.strategies.bmmal import coalition_value
from backend.strategies.kernels.kmeanspp import sequential_seeding
from backend.strategies.kernels.outer_rows import GradientRows, materialised
from backend.strategies.kernels.shapley import contributions, modulation_weights, shapley_values
from backend.strategies.kernels.uncertainty import entropy

ONE, TWO = frozenset({"1"}), frozenset({"2"})
BOTH, NONE = ONE | TWO, frozenset()


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def concat_coalitions(g: dict[str, np.ndarray]) -> dict[frozenset[str], np.ndarray]:
    width = g["z1"].shape[1]
    part = {"1": g["z1"] @ g["W_mm"][:, :width].T, "2": g["z2"] @ g["W_mm"][:, width:].T}
    zero = np.zeros_like(part["1"])
    return {s: softmax(sum((part[m] for m in s), zero) + g["b_mm"]) for s in (NONE, ONE, TWO, BOTH)}


def sum_coalitions(g: dict[str, np.ndarray]) -> dict[frozenset[str], np.ndarray]:
    part = {"1": g["z1"] @ g["W_1"].T, "2": g["z2"] @ g["W_2"].T}
    zero = np.zeros_like(part["1"])
    bias = (g["b_1"] + g["b_2"]) / 2
    return {s: softmax(sum((part[m] for m in s), zero) / 2 + bias) for s in (NONE, ONE, TWO, BOTH)}


@pytest.mark.parametrize(("name", "build"), [("concat", concat_coalitions), ("sum", sum_coalitions)])
def test_shapley_values_and_weights_equal_the_authors(golden, name, build):
    g = golden(f"shapley_{name}")
    under = build(g)
    np.testing.assert_allclose(under[BOTH], g["probs_mm"], rtol=1e-9)
    np.testing.assert_array_equal(under[BOTH].argmax(axis=1), g["pseudo"])
    values = {s: coalition_value(p, under[BOTH], multi_label=False) for s, p in under.items()}
    phi = shapley_values(values, ["1", "2"])
    np.testing.assert_allclose(phi, np.stack([g["phi1"], g["phi2"]], axis=1), rtol=1e-9, atol=1e-15)
    share = contributions(phi)
    weights = modulation_weights(share)
    defined = np.isfinite(g["contrib1"])
    np.testing.assert_allclose(share[defined, 0], g["contrib1"][defined], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(share[defined, 1], g["contrib2"][defined], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(weights[defined, 0], g["weight1"][defined], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(weights[defined, 1], g["weight2"][defined], rtol=1e-9, atol=1e-15)
    # Both modalities absent: 0/0 in the authors' code, equal shares here.
    assert (share[~defined] == 0.5).all()
    assert (weights[~defined] == 1.0).all()
    assert name != "concat" or (~defined).any()


def rows_of(g: dict[str, np.ndarray], *, modulated: bool, probabilities: str = "probs", **kind: bool) -> GradientRows:
    weights = np.stack([g["weight1"], g["weight2"]], axis=1) if modulated else None
    return GradientRows(g[probabilities], {"1": g["z1"], "2": g["z2"]}, weights, **kind)


@pytest.mark.parametrize(("modulated", "key"), [(True, "emb_bmmal"), (False, "emb_badge")])
def test_gradient_embedding_equals_the_authors(golden, modulated, key):
    g = golden("embed")
    found = materialised(rows_of(g, modulated=modulated), slice(None))
    # The authors write into a float32 buffer whatever the inputs are.
    np.testing.assert_allclose(found, g[key], rtol=2e-5, atol=1e-7)


def test_multi_label_badge_embedding_equals_the_authors(golden):
    g = golden("embed")
    found = materialised(rows_of(g, modulated=False, probabilities="probs_ml", multi_label=True), slice(None))
    np.testing.assert_allclose(found, g["emb_badge_ml"], rtol=2e-5, atol=1e-7)


def test_multi_label_bmmal_embedding_lacks_only_the_authors_doubling_of_positives(golden):
    g = golden("embed")
    found = materialised(rows_of(g, modulated=True, probabilities="probs_ml", multi_label=True), slice(None)).reshape(
        len(g["z1"]), g["probs_ml"].shape[1], -1
    )
    doubled = np.where(g["probs_ml"] >= 0.5, 2.0, 1.0)[:, :, None]
    np.testing.assert_allclose((found * doubled).reshape(len(found), -1), g["emb_bmmal_ml"], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["f64", "f32", "dups"])
@pytest.mark.parametrize(("modulated", "key"), [(True, "selected"), (False, "badge_selected")])
def test_sequential_seeding_draws_the_authors_sequence(golden, name, modulated, key):
    g = golden(f"kmeanspp_{name}")
    single = name == "f32"
    steps = {}
    found = sequential_seeding(
        rows_of(g, modulated=modulated),
        int(g["k"]),
        iter(g["draws"].tolist()),
        cdf_dtype=np.dtype(np.float32 if single else np.float64),
        watch=lambda count, distances: steps.update({count: distances.copy()}),
    )
    np.testing.assert_array_equal(found.picks, g[key])
    if modulated:
        for count, distances in zip(g["min_dist_steps"].tolist(), g["min_dist"], strict=True):
            if count in steps:
                np.testing.assert_allclose(
                    steps[count], distances, rtol=2e-5 if single else 1e-9, atol=1e-6 if single else 1e-13
                )
        assert len(set(steps) & set(g["min_dist_steps"].tolist())) >= 10


@pytest.mark.parametrize(("multi_label", "suffix"), [(False, ""), (True, "_ml")])
def test_entropy_ranks_as_the_authors_do(golden, multi_label, suffix):
    g = golden("uncertainty")
    scores = entropy(g[f"probs{suffix}"], multi_label=multi_label)
    np.testing.assert_allclose(-scores, g[f"entropy{suffix}_key"], rtol=1e-9)
    order = np.argsort(-scores, kind="stable")[: len(g[f"entropy{suffix}_sel"])]
    np.testing.assert_array_equal(order, g[f"entropy{suffix}_sel"])
