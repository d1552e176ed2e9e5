"""The strategies on a linear head against brute force: boundaries, dropout, mixing, sum fusion, graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from backend.errors import PoolInvalid
from backend.learners import LateFusionHead
from backend.strategies import Pool, create_strategy
from backend.strategies.bmmal import sum_game
from backend.strategies.kernels.dropout import (
    disagreements,
    mutual_information,
    thinned_heads,
    thinned_probabilities,
)
from backend.strategies.kernels.graph_network import CosineGraph, GraphTrainer, Network, shortened
from backend.strategies.kernels.linear_scores import (
    LinearScores,
    boundary_distances,
    row_chunks,
    softmax_rows,
    weight_gaps,
)
from backend.strategies.kernels.mixing import class_anchors, mixing_steps
from backend.strategies.kernels.representatives import representatives, unit_length
from backend.strategies.kernels.sum_fusion import as_logits, sum_fused

seeds = st.integers(0, 2**32 - 1)


def tiny_head(seed: int, n: int = 20, classes: int = 4, width: int = 5) -> tuple[np.ndarray, LinearScores]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), LinearScores(rng.normal(size=(classes, width)), rng.normal(size=classes))


# -- decision boundaries -----------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 12))
def test_a_step_of_the_boundary_distance_reaches_the_boundary_and_none_shorter_does(seed, classes):
    rows, scores = tiny_head(seed, classes=classes)
    logits = scores.logits(rows)
    gaps = weight_gaps(scores.weights, multi_label=False)
    distance = np.sqrt(boundary_distances(logits, gaps, multi_label=False, ranks=classes))
    top = logits.argmax(axis=1)
    for i, row in enumerate(rows):
        steps = []
        for j in set(range(classes)) - {top[i]}:
            normal = scores.weights[j] - scores.weights[top[i]]
            projected = row + (logits[i, top[i]] - logits[i, j]) / (normal @ normal) * normal
            at = scores.logits(projected[None])[0]
            assert at[j] == pytest.approx(at[top[i]], abs=1e-8)
            steps.append(np.linalg.norm(projected - row))
        assert distance[i] == pytest.approx(min(steps), rel=1e-9)
        shorter = row + 0.99 * distance[i] * unit_length(np.random.default_rng(seed).normal(size=(50, len(row))))
        assert (scores.logits(shorter).argmax(axis=1) == top[i]).all()


@given(seeds)
def test_with_several_labels_the_nearest_plane_of_any_label_counts(seed):
    rows, scores = tiny_head(seed)
    found = boundary_distances(scores.logits(rows), weight_gaps(scores.weights, multi_label=True), multi_label=True)
    expected = np.abs(scores.logits(rows)) / np.linalg.norm(scores.weights, axis=1)
    np.testing.assert_allclose(np.sqrt(found), expected.min(axis=1), rtol=1e-9)


def test_only_the_first_ranks_are_looked_at_and_compat_takes_the_last_of_them():
    weights = np.eye(4)
    logits = np.array([[3.0, 0.0, 1.0, 2.0]])
    gaps = weight_gaps(weights, multi_label=False)
    for ranks, nearest, last in ((2, 0.5, 0.5), (3, 0.5, 2.0), (4, 0.5, 4.5), (99, 0.5, 4.5)):
        assert boundary_distances(logits, gaps, multi_label=False, ranks=ranks) == pytest.approx(nearest)
        assert boundary_distances(logits, gaps, multi_label=False, ranks=ranks, compat=True) == pytest.approx(last)


def test_classes_of_equal_weights_are_infinitely_far_unless_the_row_lies_between_them():
    gaps = np.zeros((2, 2))
    found = boundary_distances(np.array([[1.0, 0.0], [2.0, 2.0]]), gaps, multi_label=False)
    assert found.tolist() == [np.inf, 0.0]
    assert boundary_distances(np.ones((3, 1)), np.zeros((1, 1)), multi_label=False).tolist() == [np.inf] * 3


# -- dropout -----------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 6), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_mutual_information_is_at_least_0_and_at_most_the_entropy_of_the_mean(seed, passes, multi_label, dtype):
    rng = np.random.default_rng(seed)
    p = rng.random((passes, 10, 4)) ** 8 if multi_label else rng.dirichlet(np.full(4, 0.1), (passes, 10))
    p = p.astype(dtype)
    found = mutual_information(p, multi_label=multi_label)
    alone = mutual_information(p[:1], multi_label=multi_label)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= (np.log(2) if multi_label else np.log(4)) + 1e-6).all()
    assert (alone == 0).all()


def test_passes_that_are_sure_and_contradict_one_another_tell_most():
    sure_and_split = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    doubtful_alike = np.full((2, 1, 2), 0.5)
    assert mutual_information(sure_and_split, multi_label=False) == pytest.approx(np.log(2))
    assert mutual_information(doubtful_alike, multi_label=False) == pytest.approx(0.0)
    assert mutual_information(sure_and_split, multi_label=True) == pytest.approx(np.log(2))


@given(seeds, st.booleans())
def test_a_thinned_head_is_the_head_on_rows_without_the_columns_left_out(seed, multi_label):
    rows, scores = tiny_head(seed, width=8)
    heads = thinned_heads(scores, 0.4, 3, np.random.default_rng(seed))
    found = thinned_probabilities(rows.astype(np.float32), scores, heads, multi_label=multi_label)
    assert len(heads) == len(found) == 3
    for weights, p in zip(heads, found, strict=True):
        kept = (weights != 0).any(axis=1)
        masked = np.where(kept, rows / 0.6, 0.0)
        logits = scores.logits(masked)
        np.testing.assert_allclose(p, expit(logits) if multi_label else softmax_rows(logits), rtol=1e-3, atol=1e-5)


def test_disagreement_is_rare_far_from_the_boundary_and_common_near_it():
    scores = LinearScores(np.stack([np.ones(200), -np.ones(200)]), np.zeros(2))
    far, near = np.ones((300, 200), np.float32), np.tile(np.float32([1.0, -1.0]), (300, 100))
    changed = disagreements(np.concatenate([far, near]), scores, 0.75, 4, np.random.default_rng(0))
    assert (changed[:300] == 0).all()
    # Near the boundary a pass is a fair coin but for draws, which argmax gives to the clean prediction.
    assert 0.4 < changed[300:].mean() / 4 < 0.5


# -- mixing ------------------------------------------------------------------------------------------------------


def mixed_class(row: np.ndarray, anchor: np.ndarray, epsilon: float, scores: LinearScores) -> int:
    """The class of ALFA-Mix's mixture, coordinate by coordinate as its authors compute it."""
    p = softmax_rows(scores.logits(row[None]))[0]
    p[p.argmax()] -= 1.0
    gradient = scores.weights.T @ p
    towards = anchor - row
    alpha = epsilon * np.linalg.norm(towards) * gradient / (np.linalg.norm(gradient) * towards)
    return int(scores.logits((row * (1 - alpha) + anchor * alpha)[None])[0].argmax())


@given(seeds, st.floats(0.01, 3.0))
def test_closed_form_tells_exactly_which_rows_change_class_when_mixed(seed, epsilon):
    rows, scores = tiny_head(seed)
    anchors = np.random.default_rng(seed + 1).normal(size=(4, 5))
    needed = mixing_steps(rows, scores, anchors)
    clean = scores.logits(rows).argmax(axis=1)
    for i, row in enumerate(rows):
        changes = any(mixed_class(row, anchor, epsilon, scores) != clean[i] for anchor in anchors)
        if abs(needed[i] - epsilon) > 1e-6 * epsilon:
            assert changes == (needed[i] < epsilon)


def test_anchor_of_a_class_without_labels_is_the_mean_of_all_labelled_rows():
    rows = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 6.0]])
    anchors = class_anchors(rows, np.array([2, 2, 0]), 3)
    np.testing.assert_allclose(anchors, [[0, 6], [4 / 3, 2], [2, 0]])


# -- representatives ---------------------------------------------------------------------------------------------


@given(seeds, st.integers(0, 40), st.integers(1, 30))
def test_representatives_are_distinct_candidates_and_others_only_fill_up(seed, n_candidates, count):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(60, 3)).astype(np.float32)
    rows = rng.permutation(60)
    candidates, others = rows[:n_candidates], rows[n_candidates:]
    picks = representatives(candidates, others, count, lambda r: matrix[r], rng, sample_rows=100).tolist()
    assert len(set(picks)) == len(picks) == count
    assert len(set(picks) & set(candidates.tolist())) == min(count, n_candidates)


def test_more_candidates_than_the_limit_are_sampled():
    asked = []

    def vectors(rows):
        asked.append(len(rows))
        return np.random.default_rng(0).normal(size=(len(rows), 2)).astype(np.float32)

    everything = np.arange(5000)
    representatives(everything, everything[:0], 10, vectors, np.random.default_rng(0), sample_rows=300)
    representatives(everything, everything[:0], 100, vectors, np.random.default_rng(0), sample_rows=300)
    assert asked == [300, 400]


# -- sum fusion --------------------------------------------------------------------------------------------------


@given(seeds, st.booleans())
def test_logits_of_probabilities_give_them_back(seed, multi_label):
    rng = np.random.default_rng(seed)
    p = rng.random((6, 4)) if multi_label else rng.dirichlet(np.ones(4), 6)
    found = sum_fused({"a": as_logits(p, multi_label=multi_label)}, {}, {"a"}, multi_label=multi_label)
    np.testing.assert_allclose(found, p, rtol=1e-9)
    certain = as_logits(np.eye(4, dtype=np.float32), multi_label=multi_label)
    assert np.isfinite(certain).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_sum_game_is_that_of_the_mean_of_the_unimodal_logits(make_pool, multi_label):
    names = ("audio", "image", "text")
    pool = make_pool(multi_label=multi_label, modalities=names)
    head = pool.head
    full, values = sum_game(pool)

    def logits(present):
        out = 0.0
        for m in names:
            x = pool.features[m] if m in present else np.zeros_like(pool.features[m])
            out = out + x.astype(float) @ head.unimodal[m].T + head.unimodal_bias[m]
        return out / 3

    def activated(z):
        return expit(z) if multi_label else softmax_rows(np.where(head.seen, z, -np.inf))

    np.testing.assert_allclose(full, activated(logits(names)), rtol=1e-4, atol=1e-6)
    positive = full >= 0.5 if multi_label else np.eye(full.shape[1], dtype=bool)[full.argmax(axis=1)]
    positive[np.arange(len(full)), full.argmax(axis=1)] |= ~positive.any(axis=1)
    assert len(values) == 8
    for coalition, value in values.items():
        expected = (activated(logits(coalition)) * positive).sum(axis=1) / positive.sum(axis=1)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_bmmal_reports_contributions_of_each_modality_whatever_the_fusion(make_pool, multi_label):
    def half_without_text(features):
        text = features["text"].copy()
        text[::2] = 0
        return {**features, "text": text}

    names = ("audio", "image", "text")
    pool = make_pool(multi_label=multi_label, modalities=names, change=half_without_text)
    found = {}
    for fusion in ("concat", "sum"):
        strategy = create_strategy("bmmal", fusion=fusion)
        selection = strategy.select(pool, 40, np.random.default_rng(0))
        shares = np.stack([selection.parts[f"contribution_{m}"] for m in names], axis=1)
        np.testing.assert_allclose(shares.sum(axis=1), 1.0)
        absent = selection.indices % 2 == 0
        assert 0 < absent.sum() < 40
        np.testing.assert_allclose(shares[absent, 2], 0.0, atol=1e-6)
        assert (shares[~absent, 2] > 0).any()
        spread = shares.max(axis=1, keepdims=True) - shares
        np.testing.assert_allclose(selection.parts["dominance"], spread.sum(axis=1))
        found[fusion] = selection.indices.tolist()
    assert found["concat"] != found["sum"]


def test_bmmal_compat_changes_the_picks_with_several_labels_only(make_pool):
    for multi_label in (False, True):
        pool = make_pool(multi_label=multi_label)
        ours, theirs = (
            create_strategy("bmmal", compat=compat).select(pool, 30, np.random.default_rng(0)).indices.tolist()
            for compat in (False, True)
        )
        assert (ours != theirs) == multi_label


# -- graph network -----------------------------------------------------------------------------------------------


@given(seeds)
def test_the_graph_is_never_written_down_but_multiplies_as_if_it_were(seed):
    rng = np.random.default_rng(seed)
    rows = unit_length(rng.normal(size=(12, 4)))
    rows[rng.random(12) < 0.2] = 0
    similar = rows @ rows.T
    np.fill_diagonal(similar, 0)
    written = similar / np.maximum(similar.sum(axis=0), 1.0) + np.eye(12)
    graph, columns = CosineGraph.of(rows), rng.normal(size=(12, 3))
    np.testing.assert_allclose(graph.times(columns), written @ columns, atol=1e-12)
    np.testing.assert_allclose(graph.transposed_times(columns), written.T @ columns, atol=1e-12)


def test_gradients_of_the_network_are_those_of_its_loss():
    rng = np.random.default_rng(0)
    rows = unit_length(np.abs(rng.normal(size=(15, 4))))
    trainer = GraphTrainer(CosineGraph.of(rows), np.arange(15) < 4, dropout=0.0)
    network = Network.drawn(4, 6, rng, np.dtype(np.float64))
    spread = trainer.graph.times(rows)
    found = trainer._gradients(network, spread, None, trainer.outcome(network))
    for which, gradient in enumerate(found):
        for place in np.ndindex(gradient.shape):
            losses = []
            for step in (1e-6, -1e-6):
                arrays = [array.copy() for array in network.arrays()]
                arrays[which][place] += step
                losses.append(trainer.outcome(Network(*arrays)).loss)
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_all_principal_directions_keep_every_cosine_and_a_few_keep_the_largest_part():
    rng = np.random.default_rng(0)
    rows = unit_length(rng.normal(size=(40, 6)) * [9, 9, 3, 0.1, 0.1, 0.1])
    rows[3] = 0
    turned = shortened(np.pad(rows, ((0, 0), (0, 2))), 6)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=1e-12)
    few = shortened(rows, 3)
    assert few.shape == (40, 3)
    np.testing.assert_allclose(few @ few.T, rows @ rows.T, atol=0.1)
    assert shortened(rows, 0) is rows
    assert shortened(rows, 6) is rows


def test_trained_network_scores_what_looks_labelled_higher():
    rng = np.random.default_rng(0)
    side = np.repeat([0, 1], 60)
    rows = unit_length(np.abs(np.eye(2, 8)[side] + 0.2 * rng.normal(size=(120, 8))))
    labelled = (side == 0) & (np.arange(120) % 2 == 0)
    trainer = GraphTrainer(CosineGraph.of(rows), labelled)
    network = trainer.train(Network.drawn(8, 16, rng, np.dtype(np.float64)), 400, rng)
    scores = trainer.outcome(network).scores
    assert scores[(side == 0) & ~labelled].mean() > scores[side == 1].mean() + 0.1


# -- what they need ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alfamix", "bald", "deepfool", "dropquery"])
def test_probabilities_without_their_head_are_refused(name, make_pool):
    pool = make_pool()
    headless = Pool(pool.features, pool.labelled, pool.labels, 5, probabilities=pool.probabilities)
    with pytest.raises(PoolInvalid, match="head is None"):
        create_strategy(name).select(headless, 5, np.random.default_rng(0))


@given(st.integers(0, 50), st.integers(1, 20))
def test_chunks_cover_every_row_once(n, size):
    covered = np.concatenate([np.arange(n)[part] for part in row_chunks(n, size)] or [np.arange(0)])
    assert covered.tolist() == list(range(n))


def test_scores_of_a_head_give_its_predictions(make_pool):
    for multi_label in (False, True):
        pool = make_pool(multi_label=multi_label, n_classes=30, n_labelled=12)
        head: LateFusionHead = pool.head
        scores = LinearScores.of(head.fused, head.fused_bias, head.seen, multi_label=multi_label)
        joined = np.concatenate([pool.features[m] for m in pool.modalities], axis=1)
        logits = scores.logits(joined)
        p = np.zeros_like(pool.probabilities)
        p[:, slice(None) if multi_label else head.seen] = expit(logits) if multi_label else softmax_rows(logits)
        np.testing.assert_allclose(p, pool.probabilities, rtol=1e-4, atol=1e-6)
