"""Equality with what the BMMAL authors' unmodified code produced (golden/bmmal_*.npz)."""

from __future__ import annotations

import numpy as np
import pytest

from backend.strategies.bmmal import coalition_value
from backend.strategies.kernels.dropout import mutual_information
from backend.strategies.kernels.graph_network import CosineGraph, GraphTrainer, Network, core_features
from backend.strategies.kernels.kcenter import lazy_k_center
from backend.strategies.kernels.linear_scores import LinearScores, boundary_distances, weight_gaps
from backend.strategies.kernels.outer_rows import GradientRows
from backend.strategies.kernels.representatives import unit_length
from backend.strategies.kernels.shapley import contributions, modulation_weights, shapley_values
from backend.strategies.kernels.sum_fusion import as_logits, sum_fused
from backend.strategies.kernels.uncertainty import entropy
from backend.strategies.kernels.views import UnitView
from tests.reference.plain_k_center import plain_k_center
from tests.reference.seeding import materialised, sequential_seeding

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
    logits = {m: g[f"z{m}"] @ g[f"W_{m}"].T + g[f"b_{m}"] for m in ("1", "2")}
    at_zero = {m: g[f"b_{m}"] for m in ("1", "2")}
    return {s: sum_fused(logits, at_zero, s, multi_label=False) for s in (NONE, ONE, TWO, BOTH)}


def test_sum_fusion_needs_only_the_probabilities_of_each_modality(golden):
    g = golden("shapley_sum")
    logits = {m: as_logits(g[f"probs_{m}"], multi_label=False) for m in ("1", "2")}
    at_zero = {m: as_logits(softmax(g[f"b_{m}"][None]), multi_label=False)[0] for m in ("1", "2")}
    for coalition, expected in sum_coalitions(g).items():
        np.testing.assert_allclose(sum_fused(logits, at_zero, coalition, multi_label=False), expected, rtol=1e-12)


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


@pytest.mark.parametrize("name", ["concat", "sum"])
def test_unimodal_heads_of_the_golden_pools_are_linear(golden, name):
    g = golden(f"shapley_{name}")
    for m in ("1", "2"):
        np.testing.assert_allclose(softmax(g[f"z{m}"] @ g[f"W_{m}"].T + g[f"b_{m}"]), g[f"probs_{m}"], rtol=1e-9)


@pytest.mark.parametrize(("name", "build"), [("concat", concat_coalitions), ("sum", sum_coalitions)])
def test_contributions_at_every_class_equal_the_authors(golden, name, build):
    """What "Contribution" and "Delta" are made of: the game valued at a given class, here at each of them."""
    g = golden(f"shapley_{name}")
    under = build(g)
    for c in range(under[BOTH].shape[1]):
        at = np.full(len(g["pseudo"]), c)
        phi = shapley_values(
            {s: coalition_value(p, under[BOTH], multi_label=False, classes=at) for s, p in under.items()}, ["1", "2"]
        )
        share = contributions(phi)
        for column, m in enumerate("12"):
            np.testing.assert_allclose(phi[:, column], g[f"phi{m}_all"][:, c], rtol=1e-9, atol=1e-15)
            theirs = g[f"contrib{m}_all"][:, c]
            defined = np.isfinite(theirs)
            np.testing.assert_allclose(share[defined, column], theirs[defined], rtol=1e-9, atol=1e-15)


def test_shapley_values_of_logits_equal_the_authors(golden):
    concat, summed = golden("shapley_concat"), golden("shapley_sum")
    width = concat["z1"].shape[1]
    games = {
        "concat": (concat, {m: z @ w.T for m, z, w in (
            ("1", concat["z1"], concat["W_mm"][:, :width]), ("2", concat["z2"], concat["W_mm"][:, width:]),
        )}, concat["b_mm"]),
        "sum": (summed, {m: summed[f"z{m}"] @ summed[f"W_{m}"].T / 2 for m in "12"},
                (summed["b_1"] + summed["b_2"]) / 2),
    }  # fmt: skip
    for g, part, bias in games.values():
        values = {s: (sum((part[m] for m in s), 0 * part["1"]) + bias).ravel() for s in (NONE, ONE, TWO, BOTH)}
        phi = shapley_values(values, ["1", "2"])
        for column, m in enumerate("12"):
            np.testing.assert_allclose(phi[:, column], g[f"phi{m}_logit_all"].ravel(), rtol=1e-8, atol=1e-12)


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


def test_multi_label_bmmal_embedding_equals_the_authors_only_with_their_doubling_of_positives(golden):
    g = golden("embed")
    asked = {"modulated": True, "probabilities": "probs_ml", "multi_label": True}
    theirs = materialised(rows_of(g, **asked, compat=True), slice(None))
    np.testing.assert_allclose(theirs, g["emb_bmmal_ml"], rtol=2e-5, atol=1e-7)
    ours = materialised(rows_of(g, **asked), slice(None)).reshape(len(theirs), g["probs_ml"].shape[1], -1)
    doubled = np.where(g["probs_ml"] >= 0.5, 2.0, 1.0)[:, :, None]
    np.testing.assert_allclose((ours * doubled).reshape(len(theirs), -1), theirs, rtol=1e-9)


@pytest.mark.parametrize("name", ["f64", "f32", "dups"])
@pytest.mark.parametrize(("modulated", "key"), [(True, "selected"), (False, "badge_selected")])
def test_sequential_seeding_draws_the_authors_sequence(golden, name, modulated, key):
    g = golden(f"kmeanspp_{name}")
    single = name == "f32"
    np.testing.assert_array_equal(np.random.RandomState(int(g["seed"])).random_sample(len(g["draws"])), g["draws"])
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


@pytest.mark.parametrize(("multi_label", "suffix"), [(False, ""), (True, "_ml")])
def test_bald_ranks_as_the_authors_do_but_for_their_sign_with_several_labels(golden, multi_label, suffix):
    g = golden("uncertainty")
    found = mutual_information(g[f"mc_probs{suffix}"], multi_label=multi_label)
    sign = 1.0 if multi_label else -1.0
    np.testing.assert_allclose(sign * found, g[f"bald{suffix}_key"], rtol=1e-9, atol=1e-15)
    order = np.argsort(sign * found, kind="stable")[: len(g[f"bald{suffix}_sel"])]
    np.testing.assert_array_equal(order, g[f"bald{suffix}_sel"])


@pytest.mark.parametrize(("compat", "kind"), [(False, "correct"), (True, "authors")])
def test_deepfool_distances_equal_the_closed_form_and_with_compat_the_authors(golden, compat, kind):
    g = golden("deepfool")
    scores = LinearScores(g["W"], g["b"])
    gaps = weight_gaps(g["W"], multi_label=False)
    found = boundary_distances(scores.logits(g["z"]), gaps, multi_label=False, compat=compat)
    np.testing.assert_allclose(found, g[f"dist_{kind}"], rtol=1e-9)
    order = np.argsort(found, kind="stable")[: len(g[f"selected_{kind}"])]
    np.testing.assert_array_equal(order, g[f"selected_{kind}"])


def test_graph_network_trains_as_the_authors_does(golden):
    g = golden("gcn")
    rows = unit_length(g["features"])
    graph = CosineGraph.of(rows)
    np.testing.assert_allclose(graph.times(np.eye(len(rows))), g["adj"], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(graph.transposed_times(np.eye(len(rows))), g["adj"].T, rtol=1e-9, atol=1e-15)
    labelled = np.isin(np.arange(len(rows)), g["labelled"])
    trainer = GraphTrainer(graph, labelled, dropout=0.0)
    start = Network(g["gc1_w"], g["gc1_b"], g["gc3_w"], g["gc3_b"])
    before = trainer.outcome(start)
    np.testing.assert_allclose(before.scores, g["score0"], rtol=1e-9)
    np.testing.assert_allclose(before.hidden, g["hidden0"], rtol=1e-9, atol=1e-15)
    assert before.loss == pytest.approx(float(g["loss0"]), rel=1e-9)
    after = trainer.outcome(trainer.train(start, 200, np.random.default_rng(0)))
    np.testing.assert_allclose(after.scores, g["score"], rtol=1e-9)
    np.testing.assert_allclose(core_features(after), g["core_features"], rtol=1e-9, atol=1e-12)
    assert after.loss == pytest.approx(float(g["loss_final"]), rel=1e-9)
    free = np.flatnonzero(~labelled)
    nearest = free[np.argsort(np.abs(after.scores[free] - 0.1), kind="stable")[: int(g["k"])]]
    np.testing.assert_array_equal(nearest[::-1], g["uncertain_selected"])  # the authors return the last of them first
    view = UnitView({"core": core_features(after)})
    for k_center in (plain_k_center, lazy_k_center):
        found = k_center(view, int(g["k"]), g["labelled"], ~labelled)
        np.testing.assert_array_equal(found.picks, g["core_selected"])
