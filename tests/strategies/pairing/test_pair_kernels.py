"""The kernels against their formulas, written out."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.strategies.kernels import best_matches as matches_module
from backend.strategies.kernels.best_matches import best_matches
from backend.strategies.kernels.confusion import hinge_scores
from backend.strategies.kernels.hubness import hub_penalty
from backend.strategies.kernels.kcenter import FarthestFirst
from backend.strategies.pairing.spaces import Space

# Entries of which every sum of products is exact, so that ties are ties; and plain noise.
KINDS = ("exact", "noise", "noise with copies")


def draw(rng: np.random.Generator, n: int, width: int, kind: str) -> np.ndarray:
    if kind == "exact":
        return rng.choice([-0.5, 0.5], size=(n, 4)).astype(np.float32)
    rows = rng.normal(size=(n, width)).astype(np.float32)
    return rows[rng.integers(0, n, n)] if kind == "noise with copies" else rows


def brute_matches(queries, candidates, k, penalty):
    """By pairs in float64, whatever stands beside them; ties to the lowest row."""
    left, right = queries.astype(np.float64), candidates.astype(np.float64)
    scores = np.stack([np.einsum("ij,ij->i", np.broadcast_to(x, right.shape), right) for x in left]) - penalty
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, int(np.isfinite(penalty).sum()))]
    return order, np.take_along_axis(scores, order, axis=1)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    k=st.integers(1, 9),
    chunk=st.integers(1, 70),
    kind=st.sampled_from(KINDS),
    closed=st.sampled_from([0.0, 0.5, 1.0]),
    corrected=st.booleans(),
)
def test_the_best_matches_are_those_of_all_pairs(seed, n, k, chunk, kind, closed, corrected):
    rng = np.random.default_rng(seed)
    view = Space((draw(rng, n, 7, kind),))
    queries = Space((draw(rng, 11, 7, kind),)).rows(slice(None))
    penalty = np.round(rng.random(n), 1) * corrected
    penalty[rng.random(n) < closed] = np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matches_module, "CHUNK_ROWS", chunk)
        patch.setattr(matches_module, "QUERY_ROWS", 4)
        rows, scores = best_matches(queries, view, k, penalty)
    wanted, values = brute_matches(queries, view.rows(slice(None)), k, penalty)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(scores, values)


def test_candidates_that_rounding_cannot_tell_apart_are_compared_in_float64():
    rng = np.random.default_rng(0)
    base = rng.normal(size=64)
    rows = (base + 1e-6 * rng.normal(size=(3000, 64))).astype(np.float32)
    queries = Space((rng.normal(size=(5, 64)).astype(np.float32),)).rows(slice(None))
    candidates = Space((rows,)).rows(slice(None))
    rough = np.argsort(-(queries @ candidates.T), axis=1, kind="stable")[:, :3]
    wanted, _ = brute_matches(queries, candidates, 3, np.zeros(3000))
    found, _ = best_matches(queries, Space((rows,)), 3, np.zeros(3000))
    np.testing.assert_array_equal(found, wanted)
    assert (rough != wanted).any(), "the case does not tell float32 from float64"


def test_a_pool_of_copies_is_looked_at_once_and_costs_no_more_memory_than_chunks():
    pool = np.repeat(np.eye(8, dtype=np.float32), 5000, axis=0)
    queries = Space((np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32),)).rows(slice(None))
    tracemalloc.start()
    rows, _ = best_matches(queries, Space((pool,)), 3, np.zeros(len(pool)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first = 5000 * queries.argmax(axis=1)
    np.testing.assert_array_equal(rows, first[:, None] + np.arange(3))
    assert peak < 50e6


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 120),
    kind=st.sampled_from(KINDS),
    cosine=st.booleans(),
    share=st.floats(0.0, 1.0),
)
def test_farthest_first_picks_what_the_loop_of_the_paper_picks(seed, n, kind, cosine, share):
    rng = np.random.default_rng(seed)
    space = Space((draw(rng, n, 5, kind),), cosine)
    centres = rng.permutation(n)[: rng.integers(1, min(n, 6))]
    open_ = rng.random(n) < share
    open_[centres] = False
    size = int(open_.sum())
    rows = space.rows(slice(None)).astype(np.float64)
    squared = np.min([((rows - rows[c]) ** 2).sum(axis=1) for c in centres], axis=0)
    search = FarthestFirst(space, centres, open_)
    np.testing.assert_allclose(search.bound[open_], squared[open_], atol=1e-4)
    if size:
        np.testing.assert_allclose(search.radius() ** 2, squared[open_].max(), rtol=1e-12, atol=1e-15)
    wanted, radii = [], []
    for _ in range(size):
        pick = int(np.argmax(np.where(open_, squared, -1.0)))
        wanted.append(pick)
        radii.append(squared[pick])
        open_[pick] = False
        squared = np.minimum(squared, ((rows - rows[pick]) ** 2).sum(axis=1))
    # Stopped and gone on with, as it is by a strategy.
    search.until(size // 2)
    search.until(size)
    found = search.found()
    np.testing.assert_array_equal(found.picks, wanted)
    np.testing.assert_allclose(found.radii**2, radii, atol=1e-6)


def test_what_is_left_out_is_never_picked():
    rng = np.random.default_rng(1)
    space = Space((rng.normal(size=(3000, 6)).astype(np.float32),))
    open_ = np.arange(3000) > 4
    first = FarthestFirst(space, np.arange(3), open_)
    first.until(5)
    search = FarthestFirst(space, np.arange(3), open_)
    search.leave_out(first.found().picks)
    search.until(200)
    fewer = open_.copy()
    fewer[first.found().picks] = False
    fresh = FarthestFirst(space, np.arange(3), fewer)
    fresh.until(200)
    np.testing.assert_array_equal(search.found().picks, fresh.found().picks)


@pytest.mark.parametrize("kind", ["csls", "lse"])
def test_hub_penalties_are_those_of_the_formulas(kind):
    rng = np.random.default_rng(2)
    space = Space((rng.normal(size=(40, 6)).astype(np.float32),))
    sample = Space((rng.normal(size=(25, 6)).astype(np.float32),)).rows(slice(None))
    similar = space.rows(slice(None)).astype(np.float64) @ sample.T.astype(np.float64)
    wanted = {
        "csls": np.sort(similar, axis=1)[:, -10:].mean(axis=1) / 2,
        "lse": 0.05 / 2 * np.log(np.exp(similar / 0.05).mean(axis=1)),
    }
    np.testing.assert_allclose(hub_penalty(space, sample, kind, 0.05), wanted[kind], atol=2e-6)


@pytest.mark.parametrize("top", [1, 4, 100])
def test_hinges_are_those_of_the_formula(top):
    rng = np.random.default_rng(3)
    space = Space((rng.normal(size=(30, 5)).astype(np.float32),))
    anchors = Space((rng.normal(size=(12, 5)).astype(np.float32),)).rows(slice(None))
    matched = rng.random(12)
    some = np.array([3, 20, 7])
    value = space.rows(some).astype(np.float64) @ anchors.T.astype(np.float64) - matched + 0.2
    largest = np.sort(value, axis=1)[:, -top:]
    cut, raw = hinge_scores(space, some, anchors, matched, 0.2, top)
    np.testing.assert_allclose(raw, largest.mean(axis=1), atol=2e-6)
    np.testing.assert_allclose(cut, np.maximum(largest, 0).mean(axis=1), atol=2e-6)


@pytest.mark.parametrize("cosine", [True, False])
def test_distances_of_two_spaces_side_by_side_are_the_mean_of_both(cosine):
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)

    def squared(*matrices: np.ndarray) -> np.ndarray:
        rows = Space(matrices, cosine).rows(slice(None))
        return ((rows[:, None] - rows[None]) ** 2).sum(axis=2)

    np.testing.assert_allclose(squared(a, b), (squared(a) + squared(b)) / 2, rtol=1e-5, atol=1e-6)
