"""The law of the rejection sampler, computed and not estimated: every proposal and refusal of a tiny pool."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest

from backend.strategies.kernels import kmeanspp
from backend.strategies.kernels.kmeanspp import rejection_seeding
from backend.strategies.kernels.outer_rows import GradientRows
from tests.reference.seeding import materialised

N, PICKS = 5, 4


@pytest.fixture(params=[0, 1])
def rows(request) -> GradientRows:
    rng = np.random.default_rng(request.param)
    features = {"image": rng.normal(size=(N, 4)), "text": rng.normal(size=(N, 3))}
    return GradientRows(rng.dirichlet(np.ones(3), N), features, rng.random((N, 2)))


class Script:
    """A generator whose uniforms are given in advance: a proposal, then whether it is accepted, and so on."""

    def __init__(self, draws: list[float]) -> None:
        self.draws = iter(draws)

    def random(self, size: int) -> np.ndarray:
        return np.array([next(self.draws) for _ in range(size)])


def state_after(rows: GradientRows, script: list[float]) -> tuple[list[int], np.ndarray]:
    """(picks, cumulated weights from which the next proposal is drawn) after a script, one proposal a block."""
    seen: list[np.ndarray] = []
    samplers = []
    draw = kmeanspp._RejectionSampler.draw

    def watched(self: kmeanspp._RejectionSampler, k: int) -> bool:
        samplers.append(self)
        seen.append(self.cdf.copy())
        return draw(self, k)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StopIteration):
        patch.setattr(kmeanspp._RejectionSampler, "draw", watched)
        rejection_seeding(rows, PICKS, Script(script))  # type: ignore[arg-type]
    return list(samplers[-1].picks), seen[-1]


def proposal_of(cdf: np.ndarray, index: int) -> float:
    """A uniform that proposes this row: the middle of its interval."""
    below = cdf[index - 1] if index else 0.0
    return float((below + cdf[index]) / 2.0 / cdf[-1])


def acceptance(rows: GradientRows, script: list[float], index: int) -> float:
    """Share of the second uniforms that accept a proposal of ``index`` after the script, by bisection."""
    picks, cdf = state_after(rows, script)
    proposed = proposal_of(cdf, index)
    low, high = 0.0, 1.0
    for _ in range(18):
        middle = (low + high) / 2.0
        accepted = len(state_after(rows, [*script, proposed, middle])[0]) > len(picks)
        low, high = (middle, high) if accepted else (low, middle)
    return (low + high) / 2.0


def script_of(rows: GradientRows, path: tuple[int, ...], *, refuse: bool) -> list[float]:
    """Proposals that pick the path, every one accepted; then, if asked for, one that is refused where one can be."""
    script: list[float] = []
    for index in path:
        script += [proposal_of(state_after(rows, script)[1], index), 0.0]
    picks, cdf = state_after(rows, script)
    if refuse:
        for index in set(range(N)) - set(picks):
            if acceptance(rows, script, index) < 0.999:
                return [*script, proposal_of(cdf, index), 0.9999]
    return script


@pytest.mark.parametrize("refuse", [False, True], ids=["from stale bounds", "after a refusal that refreshed them"])
def test_each_pick_has_exactly_the_probability_of_sequential_sampling(rows, refuse, monkeypatch):
    monkeypatch.setattr(kmeanspp, "BLOCK", 1)
    monkeypatch.setattr(kmeanspp, "REFUSED_SHARE", 0.01 if refuse else 1e9)
    full = materialised(rows, slice(None))
    squared = ((full[:, None] - full[None]) ** 2).sum(axis=2) + rows.offset
    first = int((full**2).sum(axis=1).argmax())
    others = [i for i in range(N) if i != first]
    stale = 0
    # Every ordered way to fewer picks than are asked for.
    for path in itertools.chain.from_iterable(itertools.permutations(others, length) for length in range(PICKS - 1)):
        script = script_of(rows, path, refuse=refuse)
        picks, cdf = state_after(rows, script)
        assert picks == [first, *path]
        proposed = np.diff(cdf, prepend=0.0) / cdf[-1]
        taken = np.array([0.0 if i in picks else acceptance(rows, script, i) for i in range(N)])
        law = proposed * taken / (proposed * taken).sum()
        nearest = np.where(np.isin(np.arange(N), picks), 0.0, squared[:, picks].min(axis=1))
        np.testing.assert_allclose(law, nearest / nearest.sum(), atol=2e-5)
        stale += bool((taken[nearest > 0] < 0.999).any())
    # Both kinds of state were met: proposals from old distances, and from distances brought up to date.
    assert stale == 0 if refuse else stale >= len(others)
