"""k-center, k-means, neighbours and typicality: the authors' records, and equality with definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.strategies import Pool, create_strategy
from backend.strategies.kernels import kcenter, kmeans, neighbours
from backend.strategies.kernels.kcenter import lazy_k_center, most_central
from backend.strategies.kernels.kmeans import cluster_rows, rank_in_cluster
from backend.strategies.kernels.neighbours import nearest_neighbours
from backend.strategies.kernels.typicality import TypicalMembers
from backend.strategies.kernels.views import CentredView, UnitView, view_of
from tests.reference.plain_k_center import plain_k_center

seeds = st.integers(0, 2**32 - 1)


def view(matrix: np.ndarray) -> UnitView:
    return UnitView({"x": matrix})


def pairwise(matrix: np.ndarray) -> np.ndarray:
    wide = matrix.astype(np.float64)
    return ((wide[:, None] - wide[None]) ** 2).sum(axis=2)


# -- k-center ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k_center", [plain_k_center, lazy_k_center])
def test_k_center_picks_what_the_authors_picked(golden, k_center):
    g = golden("kcenter")
    candidates = np.ones(len(g["features"]), dtype=bool)
    candidates[g["labelled"]] = False
    found = k_center(view(g["features"]), int(g["k"]), g["labelled"], candidates)
    np.testing.assert_array_equal(found.picks, g["selected"])
    np.testing.assert_allclose(found.radii, g["max_min_dist"], rtol=1e-9)


def test_coreset_picks_what_the_authors_picked_but_for_single_precision(golden):
    g = golden("kcenter")
    labelled = np.zeros(len(g["features"]), dtype=bool)
    labelled[g["labelled"]] = True
    pool = Pool({"image": g["features"]}, labelled, np.where(labelled, 0, -1), 2)
    found = create_strategy("coreset").select(pool, int(g["k"]), np.random.default_rng(0))
    np.testing.assert_array_equal(found.indices, g["selected"])
    np.testing.assert_allclose(found.parts["radius"], g["max_min_dist"], rtol=1e-9)


def points(seed: int, n: int, width: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, width)).astype(np.float32)
    if kind == "lattice":
        return np.round(matrix)
    if kind == "copies":
        return matrix[rng.integers(0, max(1, n // 4), n)]
    if kind == "corners":
        return np.eye(8, dtype=np.float32)[rng.integers(0, 8, n)]
    if kind == "half precision":
        return matrix.astype(np.float16)
    return matrix


KINDS = ["normal", "lattice", "copies", "corners", "half precision"]


@settings(max_examples=150)
@given(seeds, st.integers(2, 200), st.integers(1, 6), st.sampled_from(KINDS), st.sampled_from([1, 3, 20, 1024]))
def test_lazy_k_center_picks_what_the_plain_greedy_picks_in_the_same_order(seed, n, width, kind, working):
    matrix = points(seed, n, width, kind)
    rng = np.random.default_rng(seed)
    candidates = rng.random(n) < 0.9
    candidates[rng.integers(n)] = False
    k = int(rng.integers(0, candidates.sum() + 1))
    anchors = np.flatnonzero(~candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcenter, "WORKING_ROWS", (working, working))
        patch.setattr(kcenter, "FEW_ROWS", max(1, working // 4))
        patch.setattr(kcenter, "CHUNK_ROWS", 16)
        lazy = lazy_k_center(view(matrix), k, anchors, candidates)
    plain = plain_k_center(view(matrix), k, anchors, candidates)
    np.testing.assert_array_equal(lazy.picks, plain.picks)
    np.testing.assert_allclose(lazy.radii, plain.radii, atol=1e-6)
    assert (lazy.bounds[candidates] >= plain.bounds[candidates] - 1e-4).all()


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.just(2)), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
)
def test_lazy_k_center_breaks_ties_by_the_lowest_row(matrix):
    candidates = np.ones(len(matrix), dtype=bool)
    candidates[-1] = False
    k, anchors = len(matrix) - 1, np.array([len(matrix) - 1])
    plain, lazy = (f(view(matrix), k, anchors, candidates).picks for f in (plain_k_center, lazy_k_center))
    np.testing.assert_array_equal(lazy, plain)


def test_lazy_k_center_equals_the_plain_greedy_on_vectors_of_many_numbers():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(30, 200))[rng.integers(0, 30, 5000)] + rng.normal(size=(5000, 200))
    matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16)
    candidates = rng.random(5000) < 0.98
    anchors = np.flatnonzero(~candidates)
    plain, lazy = (f(view(matrix), 300, anchors, candidates) for f in (plain_k_center, lazy_k_center))
    np.testing.assert_array_equal(lazy.picks, plain.picks)
    np.testing.assert_allclose(lazy.radii, plain.radii, rtol=1e-6)


def test_radii_of_k_center_never_grow():
    matrix = points(1, 400, 5, "normal")
    candidates = np.arange(400) > 0
    radii = lazy_k_center(view(matrix), 100, np.array([0]), candidates).radii
    assert (np.diff(radii) <= 1e-9).all()


def test_before_the_first_label_coreset_starts_from_the_most_central_record(make_pool):
    pool = make_pool(n_labelled=0)
    rows = view_of(pool.features, "unit").rows(slice(0, len(pool)))
    first = create_strategy("coreset").select(pool, 5, np.random.default_rng(0)).indices[0]
    assert first == ((rows - rows.mean(axis=0)) ** 2).sum(axis=1).argmin()
    assert most_central(view(rows), np.arange(len(rows)) != first) != first


# -- k-means -----------------------------------------------------------------------------------------------------


def test_two_nearest_of_each_cluster_in_order_are_the_authors_k_means_picks(golden):
    g = golden("kmeans")
    rank = rank_in_cluster(g["cluster"], g["sqdist"])
    order = np.lexsort((rank, g["cluster"]))
    found = order[rank[order] < 2][: int(g["n_clusters"])]
    np.testing.assert_array_equal(found, g["selected_authors"])
    # What ``kmeans`` does instead: one of each cluster, so that none is left out.
    assert len(np.unique(g["cluster"][found])) < len(np.unique(g["cluster"])) == (rank == 0).sum()


def test_kmeans_picks_the_nearest_member_of_each_cluster(make_pool):
    pool = make_pool(n=400, n_classes=6)
    found = create_strategy("kmeans").select(pool, 12, np.random.default_rng(0))
    free = pool.unlabelled
    rows = view_of(pool.features, "unit")
    clusters = cluster_rows(rows, free, 12, np.random.default_rng(0), rounds=20, sample_rows=20_000)
    picked = np.searchsorted(free, found.indices)
    assert sorted(clusters.assignment[picked].tolist()) == list(range(12))
    for position in picked:
        peers = clusters.assignment == clusters.assignment[position]
        assert clusters.squared[position] == clusters.squared[peers].min()
    sizes = np.bincount(clusters.assignment)[clusters.assignment[picked]]
    assert (np.diff(sizes) <= 0).all()


def test_clusters_of_a_sample_give_every_row_its_nearest_centroid(monkeypatch):
    monkeypatch.setattr(kmeans, "chunks", lambda n: [slice(b, min(b + 37, n)) for b in range(0, n, 37)])
    matrix = points(0, 500, 4, "normal")
    rows = np.arange(100, 500)
    found = cluster_rows(view(matrix), rows, 5, np.random.default_rng(0), rounds=20, sample_rows=60)
    squared = ((matrix[rows][:, None] - found.centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.assignment, squared.argmin(axis=1))
    np.testing.assert_allclose(found.squared, squared.min(axis=1), rtol=1e-4, atol=1e-5)


# -- nearest neighbours ------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(seeds, st.integers(2, 60), st.integers(1, 12), st.sampled_from(["normal", "lattice", "half precision"]))
def test_nearest_neighbours_are_those_of_brute_force(seed, n, k, kind):
    matrix = points(seed, n, 3, kind)
    rng = np.random.default_rng(seed)
    queries, base = rng.permutation(n)[: n // 2 + 1], np.flatnonzero(rng.random(n) < 0.7)
    squared = pairwise(matrix)
    np.fill_diagonal(squared, np.inf)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("QUERY_ROWS", "BLOCK_ROWS", "BASE_ROWS"):
            patch.setattr(neighbours, name, 7)
        rows, found = nearest_neighbours(view(matrix), queries, base, k)
    for query, near, distance in zip(queries, rows, found, strict=True):
        assert query not in near
        assert set(near) <= set(base)
        order = base[np.lexsort((base, squared[query, base]))][: len(near)]
        np.testing.assert_allclose(distance, squared[query, order], atol=1e-4)
        if kind == "lattice":
            # Exact in single precision: ties are in order too.
            np.testing.assert_array_equal(near, order)
    assert rows.shape[1] == min(k, len(base) - bool(set(queries) & set(base)))


def test_neighbours_are_searched_in_half_precision_on_disk(tmp_path):
    matrix = points(0, 300, 8, "half precision")
    np.save(tmp_path / "x.npy", matrix)
    on_disk = view(np.load(tmp_path / "x.npy", mmap_mode="r"))
    every = np.arange(300)
    for mine, theirs in zip(
        nearest_neighbours(on_disk, every, every, 5), nearest_neighbours(view(matrix), every, every, 5), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


# -- typicality --------------------------------------------------------------------------------------------------


def plain_typicality(matrix: np.ndarray, alive: list[int], wanted: int) -> dict[int, float]:
    count = min(wanted, len(alive) // 2)
    distance = np.sqrt(pairwise(matrix))
    out = {}
    for i in alive:
        near = sorted(distance[i, j] for j in alive if j != i)[:count]
        out[i] = 1.0 / (np.mean(near) + 1e-5) if count else 0.0
    return out


@settings(max_examples=30)
@given(seeds, st.integers(2, 50))
def test_members_are_taken_by_typicality_among_those_that_are_left(seed, n):
    matrix = points(seed, n, 3, "normal")
    members = np.arange(n)
    group = TypicalMembers(view(matrix), members, 5, 1000, np.random.default_rng(0))
    alive = members.tolist()
    while alive:
        expected = plain_typicality(matrix, alive, 5)
        assert group.left() == len(alive)
        row, value = group.take()
        assert value == pytest.approx(max(expected.values()), rel=1e-3)
        assert expected[row] == pytest.approx(value, rel=1e-3)
        alive.remove(row)
    assert group.left() == 0


def test_a_large_group_is_searched_in_a_sample_and_still_gives_every_member_once():
    matrix = points(0, 90, 3, "normal")
    group = TypicalMembers(view(matrix), np.arange(90), 5, 30, np.random.default_rng(0))
    assert sorted(group.take()[0] for _ in range(90)) == list(range(90))


def test_typiclust_takes_the_dense_middle_of_each_cluster_without_a_label():
    rng = np.random.default_rng(0)
    centres = np.eye(6, 10) * 4
    member = np.repeat(np.arange(6), 30)
    matrix = (centres[member] + rng.normal(size=(180, 10)) * rng.choice([0.05, 0.6], (180, 1))).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    labelled = np.isin(np.arange(180), [3, 40])
    pool = Pool({"image": matrix}, labelled, np.where(labelled, member, -1), 6)
    picks = create_strategy("typiclust", neighbours=5).select(pool, 4, rng).indices
    assert sorted(member[picks].tolist()) == [2, 3, 4, 5]
    spread = np.sqrt(
        ((matrix - np.stack([matrix[member == c].mean(axis=0) for c in range(6)])[member]) ** 2).sum(axis=1)
    )
    for pick in picks:
        assert spread[pick] < np.median(spread[member == member[pick]])


# -- views -------------------------------------------------------------------------------------------------------


def test_half_precision_blocks_are_widened_exactly_whatever_their_size(tmp_path):
    rng = np.random.default_rng(0)
    small, large = (rng.normal(size=(n, 8)).astype(np.float16) for n in (10, 20_000))
    for matrix in (small, large):
        np.save(tmp_path / "x.npy", matrix)
        on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
        for features in (matrix, on_disk):
            np.testing.assert_array_equal(view(features).rows(slice(0, len(matrix))), matrix.astype(np.float32))
            np.testing.assert_array_equal(view(features).rows(np.array([3, 1])), matrix[[3, 1]].astype(np.float32))


def test_the_unit_view_puts_modalities_side_by_side_in_alphabetical_order():
    features = {"text": np.ones((4, 2), np.float32), "image": np.zeros((4, 3), np.float16)}
    assert UnitView(features).rows(np.arange(4)).tolist() == [[0, 0, 0, 1, 1]] * 4
    assert isinstance(view_of(features, "centred"), CentredView)
