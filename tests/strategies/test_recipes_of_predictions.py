"""Strategies that ask the head: what ``select`` picks is what their formula, written out densely, picks."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from backend.strategies import Pool, create_strategy
from tests.reference import dense


def never_two(labels: np.ndarray) -> np.ndarray:
    """Class 2 has no label, so that it can never be predicted."""
    return np.where(labels == 2, 3, labels) if labels.ndim == 1 else labels


def picked(name: str, pool: Pool, k: int, seed: int = 0, **options: object) -> list[int]:
    return create_strategy(name, **options).select(pool, k, np.random.default_rng(seed)).indices.tolist()


# -- rankings ----------------------------------------------------------------------------------------------------


def plogp(p: np.ndarray) -> np.ndarray:
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def entropy_of(p: np.ndarray, multi_label: bool) -> np.ndarray:
    return -(plogp(p) + plogp(1 - p)).mean(axis=-1) if multi_label else -plogp(p).sum(axis=-1)


def entropy(pool: Pool) -> np.ndarray:
    return entropy_of(pool.probabilities.astype(float), pool.multi_label)


def margin(pool: Pool) -> np.ndarray:
    p = pool.probabilities.astype(float)
    return 1 - np.abs(2 * p - 1).min(axis=1) if pool.multi_label else dense.margin(p)


def least_confidence(pool: Pool) -> np.ndarray:
    p = pool.probabilities.astype(float)
    return np.minimum(p, 1 - p).mean(axis=1) if pool.multi_label else 1 - p.max(axis=1)


def deepfool(pool: Pool, ranks: int = 10) -> np.ndarray:
    weights, bias = dense.head_weights(pool)
    logits = dense.joined(pool) @ weights.T + bias
    if pool.multi_label:
        return -(logits**2 / (weights**2).sum(axis=1)).min(axis=1)
    squared = []
    for row in logits:
        top, *rivals = np.argsort(-row)[:ranks]
        squared.append(min((row[j] - row[top]) ** 2 / ((weights[j] - weights[top]) ** 2).sum() for j in rivals))
    return -np.array(squared)


def bald(pool: Pool, passes: int = 20, dropout: float = 0.5, compat: bool = False) -> np.ndarray:
    weights, bias = dense.head_weights(pool)
    # The first draws of the seed that all selections here have: one mask a pass, the same for all records.
    kept = np.random.default_rng(0).random((passes, weights.shape[1])) >= dropout
    logits = np.stack([(dense.joined(pool) * mask / (1 - dropout)) @ weights.T + bias for mask in kept])
    p = dense.activated(logits, pool.multi_label)
    information = entropy_of(p.mean(axis=0), pool.multi_label) - entropy_of(p, pool.multi_label).mean(axis=0)
    return -information if compat and pool.multi_label else information


@pytest.mark.parametrize("multi_label", [False, True], ids=["one label", "several"])
@pytest.mark.parametrize(
    ("score", "options"),
    [(entropy, {}), (margin, {}), (least_confidence, {}), (deepfool, {}), (deepfool, {"ranks": 2}), (bald, {}),
     (bald, {"passes": 5, "dropout": 0.2}), (bald, {"compat": True})],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(2))
def test_the_records_of_the_largest_score_are_picked_in_its_order(make_pool, score, options, multi_label, seed):
    pool = make_pool(n=140, n_classes=6, n_labelled=30, multi_label=multi_label, relabel=never_two, seed=seed)
    expected = dense.best_first(score(pool, **options), pool.unlabelled)
    assert picked(score.__name__, pool, 40, **options) == expected[:40]


def test_the_farthest_in_predictions_from_labels_and_picks_is_picked_again_and_again(make_pool):
    pool = make_pool(n=90, n_classes=5, n_labelled=12)
    p = np.clip(pool.probabilities.astype(float), 1e-6, 1 - 1e-6)
    divergence = 0.5 * ((p[:, None] - p[None]) * (np.log(p)[:, None] - np.log(p)[None])).sum(axis=2)
    assert picked("cdal", pool, 20) == dense.farthest_first(divergence, pool.labelled, 20)


# -- gradients ---------------------------------------------------------------------------------------------------


def fused(pool: Pool, present: frozenset[str], fusion: str) -> np.ndarray:
    """Predictions of the head with the other modalities as zero rows."""
    head, kept = pool.head, np.ones(pool.n_classes, dtype=bool) if pool.multi_label else pool.head.seen
    if fusion == "concat":
        logits = pool.head.fused_bias + sum(
            pool.features[m].astype(float) * (m in present) @ head.fused[m].T for m in pool.modalities
        )
    else:
        logits = np.mean(
            [
                head.unimodal_bias[m] + pool.features[m].astype(float) * (m in present) @ head.unimodal[m].T
                for m in pool.modalities
            ],
            axis=0,
        )
    out = np.zeros(logits.shape)
    out[:, kept] = dense.activated(logits[:, kept], pool.multi_label)
    return out


def shapley_shares(pool: Pool, fusion: str) -> np.ndarray:
    """|phi| / sum |phi|: phi the mean, over all orders of arrival, of what a modality adds to the value of those
    before it; the value is the probability of what is predicted from all."""
    names = pool.modalities
    whole = fused(pool, frozenset(names), fusion)
    if pool.multi_label:
        valued = whole >= 0.5
        nothing = ~valued.any(axis=1)
        valued[nothing, whole[nothing].argmax(axis=1)] = True
    else:
        valued = np.arange(pool.n_classes) == whole.argmax(axis=1)[:, None]
    value = {
        frozenset(some): (fused(pool, frozenset(some), fusion) * valued).sum(axis=1) / valued.sum(axis=1)
        for size in range(len(names) + 1)
        for some in combinations(names, size)
    }
    phi = np.zeros((len(pool), len(names)))
    orders = list(permutations(names))
    for order in orders:
        for place, name in enumerate(order):
            added = value[frozenset(order[: place + 1])] - value[frozenset(order[:place])]
            phi[:, names.index(name)] += added / len(orders)
    return np.abs(phi) / np.abs(phi).sum(axis=1, keepdims=True)


def gradients(pool: Pool, fusion: str | None, compat: bool) -> np.ndarray:
    """(p - onehot) (x) [w_1 x_1 | ... | w_M x_M], w = 1 - (largest share - own share), or 1 where fusion is None;
    compat: with several labels those predicted count twice."""
    p = fused(pool, frozenset(pool.modalities), fusion or "concat")
    label = p >= 0.5 if pool.multi_label else np.arange(pool.n_classes) == p.argmax(axis=1)[:, None]
    weights = np.ones((len(pool), len(pool.modalities)))
    if fusion:
        shares = shapley_shares(pool, fusion)
        weights = 1 - (shares.max(axis=1, keepdims=True) - shares)
    scaled = [weights[:, [m]] * pool.features[name] for m, name in enumerate(pool.modalities)]
    residuals = (p - label) * np.where(label & (compat and pool.multi_label), 2, 1)
    return (residuals[:, :, None] * np.concatenate(scaled, axis=1)[:, None, :]).reshape(len(pool), -1)


# Options of the strategy, and the game whose weights its gradients have.
GRADIENTS = [("badge", {}, None), ("bmmal", {}, "concat"), ("bmmal", {"fusion": "sum"}, "sum"),
             ("bmmal", {"compat": True}, "concat")]  # fmt: skip


def some_absent(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    features["image"][:20] = 0
    features["text"][20:30] = 0
    return features


@pytest.mark.parametrize(("multi_label", "modalities"), [
    (False, ("image", "text")), (True, ("image", "text")), (False, ("audio", "image", "text")),
])  # fmt: skip
@pytest.mark.parametrize(("name", "options", "fusion"), GRADIENTS)
@pytest.mark.parametrize("seed", range(2))
def test_the_longest_gradient_is_first_and_the_reserve_follows_the_distance_to_the_batch(
    make_pool, name, options, fusion, multi_label, modalities, seed
):
    pool = make_pool(
        n=120, n_classes=4, multi_label=multi_label, modalities=modalities, relabel=never_two, seed=seed,
        change=some_absent,
    )  # fmt: skip
    found = create_strategy(name, **options).select(pool, 12, np.random.default_rng(seed))
    rows = gradients(pool, fusion, options.get("compat", False))
    length = (rows**2).sum(axis=1)
    assert found.indices[0] == dense.best_first(length, pool.unlabelled)[0]
    # Distances to the batch tell every pick and every weight: of the reserve they are the utilities.
    nearest = dense.apart(rows, rows[found.indices]).min(axis=1)
    reserve = np.setdiff1d(pool.unlabelled, found.indices)
    np.testing.assert_allclose(found.utilities[reserve], nearest[reserve], rtol=1e-3, atol=1e-6)
    below = (length[pool.unlabelled][None] < length[found.indices, None]).mean(axis=1)
    np.testing.assert_allclose(found.parts["gradient_norm"], below + 0.5 / len(pool.unlabelled), atol=1e-3)


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in GRADIENTS])
def test_no_copy_of_a_pick_is_drawn_while_there_are_other_gradients(make_pool, name, options):
    def copied(features):
        return {modality: rows[np.arange(len(rows)) % 7] for modality, rows in features.items()}

    pool = make_pool(n=120, n_classes=4, change=copied)
    assert sorted(row % 7 for row in picked(name, pool, 7, **options)) == list(range(7))


def test_bmmal_does_not_pick_what_badge_picks(make_pool):
    pool = make_pool(n=120, n_classes=4)
    assert len({tuple(picked(name, pool, 12, **options)) for name, options, _ in GRADIENTS[:3]}) == 3


# -- candidates, then the central one of each cluster ------------------------------------------------------------


def unsteady(pool: Pool, count: int, passes: int = 3, dropout: float = 0.75) -> tuple[np.ndarray, int]:
    """Records whose class changes in more passes than a threshold; and that threshold: half of the passes, lowered
    until there are 25 candidates a pick."""
    weights, bias = dense.head_weights(pool)
    x = dense.joined(pool)[pool.unlabelled]
    clean = (x @ weights.T + bias).argmax(axis=1)
    # The first draws of the seed that all selections here have: a mask for each record and pass.
    rng = np.random.default_rng(0)
    changed = np.zeros(len(x), dtype=int)
    for _ in range(passes):
        kept = rng.random(x.shape, dtype=np.float32) >= dropout
        changed += ((x * kept / (1 - dropout)) @ weights.T + bias).argmax(axis=1) != clean
    threshold = passes // 2
    while threshold > 0 and (changed > threshold).sum() < 25 * count:
        threshold -= 1
    return pool.unlabelled[changed > threshold], threshold


@pytest.mark.parametrize(
    ("n", "options", "seed", "threshold"),
    [(150, {}, 1, 1), (150, {}, 0, 0), (60, {"dropout": 0.3}, 1, 0), (150, {"passes": 7}, 1, 3),
     (100, {"passes": 7}, 0, 2), (100, {"passes": 7}, 2, 1)],
)  # fmt: skip
def test_one_pick_under_dropout_is_the_most_central_of_those_that_most_passes_change(
    make_pool, n, options, seed, threshold
):
    pool = make_pool(n=n, n_classes=4, relabel=never_two, seed=seed)
    candidates, found = unsteady(pool, 1, **options)
    assert found == threshold
    assert picked("dropquery", pool, 1, **options) == [dense.most_central(dense.centred(pool), candidates)]


def mixed_away(pool: Pool, count: int, step: float = 0.2) -> tuple[np.ndarray, float]:
    """Records whose class changes when they are mixed with some anchor by epsilon / sqrt(D); and that epsilon: step,
    2 step, ... until there are more of them than picks."""
    weights, bias = dense.head_weights(pool)
    x = dense.joined(pool)
    free, known = pool.unlabelled, np.flatnonzero(pool.labelled)
    anchors = [x[known[pool.labels[known] == c]].mean(axis=0) for c in np.unique(pool.labels[known])]
    logits = x[free] @ weights.T + bias
    predicted = logits.argmax(axis=1)
    gradient = (dense.softmax(logits) - np.eye(len(weights))[predicted]) @ weights
    epsilon = step
    while True:
        changes = np.zeros(len(free), dtype=bool)
        for anchor in anchors:
            away = anchor - x[free]
            length = np.linalg.norm(away, axis=1, keepdims=True)
            # alpha is chosen for each number, and mixes z + alpha (z* - z).
            alpha = epsilon / np.sqrt(x.shape[1]) * length * dense.unit(gradient) / away
            changes |= ((x[free] + alpha * away) @ weights.T + bias).argmax(axis=1) != predicted
        if changes.sum() > count or epsilon > 1 - 1e-9:
            return free[changes], epsilon
        epsilon = min(epsilon + step, 1.0)


@pytest.mark.parametrize(
    ("options", "seed", "epsilon"),
    [({}, 1, 0.2), ({}, 4, 0.2), ({}, 7, 0.2), ({"step": 0.02}, 7, 0.04), ({"step": 0.02}, 0, 0.06),
     ({"step": 0.02}, 9, 0.14)],
)  # fmt: skip
def test_one_pick_by_mixing_is_the_most_central_of_those_that_little_of_it_changes(make_pool, options, seed, epsilon):
    pool = make_pool(n=150, n_classes=4, relabel=never_two, seed=seed, change=some_absent)
    candidates, found = mixed_away(pool, 1, **options)
    assert found == pytest.approx(epsilon)
    vectors = dense.unit(dense.joined(pool))
    assert picked("alfamix", pool, 1, **options) == [dense.most_central(vectors, candidates)]


@pytest.mark.parametrize(("count", "step"), [(3, 0.02), (6, 0.1), (10, 0.2)])
def test_every_pick_by_mixing_is_one_of_the_first_candidates_that_are_more_than_the_picks(make_pool, count, step):
    pool = make_pool(n=150, n_classes=4)
    candidates, epsilon = mixed_away(pool, count, step)
    assert step < epsilon < 1
    assert set(picked("alfamix", pool, count, step=step)) <= set(candidates.tolist())


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_under_dropout_the_most_central_candidate_of_each_group_is_picked(make_pool, seed):
    member = np.arange(400) % 6
    pool = make_pool(n=400, n_classes=4, n_labelled=40, change=dense.in_groups(member), seed=seed)
    candidates, _ = unsteady(pool, 6)
    groups = [candidates[member[candidates] == group] for group in range(6)]
    assert sorted(picked("dropquery", pool, 6)) == sorted(dense.most_central(dense.centred(pool), g) for g in groups)
