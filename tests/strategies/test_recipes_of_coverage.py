"""Strategies that spread over the pool: what ``select`` picks is what their formula, written out densely, picks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from backend.strategies import Pool, create_strategy
from tests.reference import dense

VECTORS = {"unit": lambda pool: dense.joined(pool), "centred": dense.centred}


def picked(name: str, pool: Pool, k: int, seed: int = 0, **options: object) -> list[int]:
    return create_strategy(name, **options).select(pool, k, np.random.default_rng(seed)).indices.tolist()


def some_absent(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    features["image"][:30] = 0
    return features


def twins(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every second record nearly as the one before it, so that some labelled records lie close together."""
    rng = np.random.default_rng(0)
    for rows in features.values():
        rows[1::2] = dense.unit(rows[::2] + 0.1 * rng.normal(size=rows[::2].shape))
    return features


def grouped_pool(
    sizes: list[int], labelled: tuple[int, ...], seed: int, spread: float = 0.02
) -> tuple[Pool, np.ndarray]:
    """A pool of far and tight groups of these sizes, the rows in random order, and the group of each; labelled:
    groups in which one record each has a label, named twice for two."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    known = np.zeros(len(member), dtype=bool)
    for group in labelled:
        known[rng.choice(np.flatnonzero((member == group) & ~known))] = True
    empty = {name: np.zeros((len(member), 12)) for name in ("image", "text")}
    features = dense.in_groups(member, spread, seed)(empty)
    return Pool(features, known, np.where(known, member, -1), len(sizes)), member


# -- herding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"kernel_width": 0.3}, {"view": "unit"}])
@pytest.mark.parametrize("seed", range(3))
def test_maxherding_covers_what_neither_labels_nor_picks_cover(make_pool, options, seed):
    pool = make_pool(n=200, n_labelled=25, seed=seed, change=some_absent)
    z = VECTORS[options.get("view", "centred")](pool)
    kernel = np.exp(-dense.apart(z, z) / options.get("kernel_width", 1.0))
    expected = dense.greedy_cover(kernel, np.ones(200), pool.labelled, 30)
    assert picked("maxherding", pool, 30, **options) == expected


def calibrated_temperature(pool: Pool) -> float:
    """Of 41 from 1/20 to 20 the one with the least calibration error on a fifth of the labels, drawn first from the
    seed that all selections here have; 1 where that are fewer than four."""
    known = np.flatnonzero(pool.labelled)
    x, labels = dense.joined(pool)[known], pool.labels[known]
    order = np.random.default_rng(0).permutation(len(known))
    held, rest = np.split(order, [len(order) // 5])
    held = held[np.isin(labels[held], labels[rest])]
    if len(held) < 4:
        return 1.0
    model = LogisticRegression(C=30, max_iter=1000).fit(x[rest], labels[rest])
    logits, truth = model.decision_function(x[held]), np.searchsorted(model.classes_, labels[held])
    temperatures, errors = np.geomspace(0.05, 20, 41), []
    for temperature in temperatures:
        p = dense.softmax(logits / temperature)
        confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
        bins = np.minimum((15 * confidence).astype(int), 14)
        errors.append(sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(15)) / len(held))
    least = temperatures[np.array(errors) <= min(errors) + 1e-12]
    return float(least[np.abs(np.log(least)).argmin()])


@pytest.mark.parametrize(("n_labelled", "change"), [(60, twins), (10, some_absent)], ids=["many labels", "few"])
@pytest.mark.parametrize("seed", range(2))
def test_uherding_covers_what_a_calibrated_margin_finds_uncertain_at_the_radius_of_the_labels(
    make_pool, n_labelled, change, seed
):
    pool = make_pool(n=200, n_labelled=n_labelled, seed=seed, change=change)
    z = dense.centred(pool)
    squared = dense.apart(z, z)
    among = np.sqrt(squared[pool.labelled][:, pool.labelled][~np.eye(n_labelled, dtype=bool)])
    radius, temperature = min(among.min(), 1.0), calibrated_temperature(pool)
    assert (radius < 0.5 and temperature > 1.5) or (radius == 1 and temperature == 1)
    weights, bias = dense.head_weights(pool)
    uncertainty = dense.margin(dense.softmax((dense.joined(pool) @ weights.T + bias) / temperature))
    expected = dense.greedy_cover(np.exp(-squared / radius**2), uncertainty, pool.labelled, 25)
    found = create_strategy("uherding").select(pool, 25, np.random.default_rng(0))
    assert found.parts["temperature"][0] == pytest.approx(temperature)
    assert found.parts["radius"][0] == pytest.approx(radius, rel=1e-3)
    assert found.indices.tolist() == expected


@pytest.mark.parametrize("purity", [0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_probcover_picks_a_ball_of_the_pure_radius_that_holds_most_of_what_no_ball_holds(purity, seed):
    rng = np.random.default_rng(seed)
    # Two arcs, which are longer than their ends are apart.
    member = rng.integers(0, 2, 150)
    angle = np.pi * member + np.radians(rng.uniform(-70, 70, 150))
    known = np.isin(np.arange(150), [3, 70])
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    pool = Pool({"image": circle}, known, np.where(known, member, -1), 2)
    z, free = dense.centred(pool), pool.unlabelled
    distance = np.sqrt(dense.apart(z, z))
    foreign = np.where(member[:, None] != member[None], distance, np.inf)[np.ix_(free, free)].min(axis=1)
    radius = np.sort(foreign)[int((1 - purity) * len(free) + 1e-9)]
    inside = (distance < radius * (1 - 1e-5)).astype(float)
    covered = inside[:, known].max(axis=1)
    for pick in picked("probcover", pool, 6, purity=purity):
        gains = np.maximum(inside - covered[:, None], 0)[free].sum(axis=0)
        assert gains[pick] == gains[free].max()
        covered = np.maximum(covered, inside[:, pick])


# -- k-center ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["unit", "centred"])
@pytest.mark.parametrize("seed", range(3))
def test_coreset_picks_the_record_farthest_from_labels_and_picks_again_and_again(make_pool, view, seed):
    pool = make_pool(n=200, n_labelled=10, seed=seed, change=some_absent)
    z = VECTORS[view](pool)
    assert picked("coreset", pool, 40, view=view) == dense.farthest_first(dense.apart(z, z), pool.labelled, 40)


# -- clusters ----------------------------------------------------------------------------------------------------

SIZES = [12, 45, 20, 33, 27, 8]


@pytest.mark.parametrize(
    ("name", "options", "view"),
    [("kmeans", {}, "unit"), ("kmeans", {"view": "centred"}, "centred"), ("kmeans_cold_start", {}, "centred")],
)
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_most_central_unlabelled_record_of_each_cluster_is_picked_the_largest_first(name, options, view, seed):
    pool, member = grouped_pool(SIZES, labelled=(0, 1, 1, 3), seed=seed)
    free = pool.unlabelled
    central = {
        v: [dense.most_central(VECTORS[v](pool), free[member[free] == g]) for g in (1, 3, 4, 2, 0, 5)]
        for v in VECTORS
    }
    assert central["unit"] != central["centred"]
    assert picked(name, pool, 6, **options) == central[view]


@pytest.mark.parametrize("view", ["centred", "unit"])
@pytest.mark.parametrize("seed", range(3))
def test_typiclust_picks_the_most_typical_record_of_the_largest_clusters_with_the_fewest_labels(view, seed):
    sizes = [30, 41, 12, 60, 4, 25, 55, 18, 50, 5]
    # As many clusters as labels and picks.
    pool, member = grouped_pool(sizes, labelled=(3, 3, 5, 7), seed=seed, spread=0.01)
    z = VECTORS[view](pool)
    expected = []
    for group in (6, 8, 1, 0, 2, 5):  # one with a label before those of five records or fewer
        rows = np.flatnonzero((member == group) & ~pool.labelled)
        distances = np.sort(np.sqrt(dense.apart(z[rows], z[rows])), axis=1)[:, 1:]
        expected.append(int(rows[distances[:, : min(20, len(rows) // 2)].mean(axis=1).argmin()]))
    assert picked("typiclust", pool, 6, view=view) == expected


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_cluster_margin_takes_the_smallest_margins_in_turns_of_one_a_cluster_small_ones_first(make_pool, seed):
    member = np.arange(140) % 7
    pool = make_pool(n=140, n_classes=4, change=dense.in_groups(member), seed=seed)
    found = create_strategy("cluster_margin", candidates=6, cluster_size=20).select(
        pool, 5, np.random.default_rng(seed)
    )
    candidates = dense.best_first(dense.margin(pool.probabilities), pool.unlabelled)[:30]
    turns = found.queue(pool.labelled, 30)
    assert sorted(turns.tolist()) == sorted(candidates)
    sizes = np.bincount(member[candidates], minlength=7)
    assert len(set(sizes)) > 2
    served = [((member[turns[:place]] == member[row]).sum(), sizes[member[row]]) for place, row in enumerate(turns)]
    assert served == sorted(served)


# -- graph networks ----------------------------------------------------------------------------------------------


def trained_graph(pool: Pool, steps: int, hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """(hidden layer, logits) of every record: the network on the graph of cosines, written down whole, after full
    steps of Adam (rate 1e-3, decay 5e-4) with dropout 0.3; drawn from the seed that all selections here have."""
    rng = np.random.default_rng(0)
    x = dense.unit(dense.joined(pool))
    similar = x @ x.T * ~np.eye(len(x), dtype=bool)
    graph = similar / np.maximum(similar.sum(axis=0), 1.0) + np.eye(len(x))
    shapes = [(x.shape[1], hidden), (hidden,), (hidden, 1), (1,)]
    w1, b1, w3, b3 = values = [rng.uniform(-1, 1, s) / np.sqrt(s[-1]) for s in shapes]
    means, squares = ([np.zeros(s) for s in shapes] for _ in range(2))
    known = pool.labelled

    def forward(mask: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        layer = np.maximum(graph @ x @ w1 + b1, 0.0) * mask
        return layer, (graph @ layer @ w3 + b3)[:, 0]

    for step in range(1, steps + 1):
        mask = (rng.random((len(x), hidden), dtype=np.float32) >= 0.3) / 0.7
        layer, logits = forward(mask)
        score = 1 / (1 + np.exp(-logits))
        # d/dlogit of -mean over labelled of ln s - 1.2 mean over others of ln (1 - s).
        pull = np.where(known, (score - 1) / known.sum(), 1.2 * score / (~known).sum())[:, None]
        back = graph.T @ pull
        inner = back @ w3.T * mask * (layer > 0)
        slopes = [(graph @ x).T @ inner, inner.sum(axis=0), layer.T @ back, pull.sum(axis=0)]
        for value, slope, mean, square in zip(values, slopes, means, squares, strict=True):
            slope = slope + 5e-4 * value
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            value -= 1e-3 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return forward(1.0)


@pytest.mark.parametrize("target", [0.1, 0.5])
def test_uncertain_gcn_picks_the_scores_nearest_its_target(make_pool, target):
    pool = make_pool(n=100, n_labelled=30)
    _, logits = trained_graph(pool, steps=20, hidden=16)
    expected = dense.best_first(-np.abs(1 / (1 + np.exp(-logits)) - target), pool.unlabelled)[:15]
    assert picked("uncertain_gcn", pool, 15, target=target, steps=20, hidden=16) == expected


@pytest.mark.parametrize("seed", range(2))
def test_coregcn_spreads_over_the_hidden_layer_and_the_logit_away_from_labels(make_pool, seed):
    pool = make_pool(n=100, n_labelled=30, seed=seed)
    layer, logits = trained_graph(pool, steps=20, hidden=16)
    rows = np.concatenate([layer, logits[:, None]], axis=1)
    expected = dense.farthest_first(dense.apart(rows, rows), pool.labelled, 15)
    assert picked("coregcn", pool, 15, steps=20, hidden=16) == expected
