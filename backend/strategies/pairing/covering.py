"""The first two steps: which modality is covered worse by the known pairs, and a core-set of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.strategies.base import option
from backend.strategies.explain import percentile
from backend.strategies.kernels.kcenter import FarthestFirst
from backend.strategies.kernels.kmeans import cluster_rows, rank_in_cluster
from backend.strategies.kernels.neighbours import nearest_neighbours
from backend.strategies.kernels.sampling import uniform_sample
from backend.strategies.pairing.base import Open, PairStrategy
from backend.strategies.pairing.pairs import MODALITIES, Pairs, other
from backend.strategies.pairing.spaces import DISTANCES, SPACES, Space

RULES = ("formula1", "relative", "alternate")
# The outlier guard: mean distance to so many nearest rows, among so many rows at most, and who is left out.
GUARD_NEIGHBOURS = 10
GUARD_ROWS = 4000
GUARD_PERCENTILE = 99.0
KMEANS_ROUNDS = 10
KMEANS_ROWS = 20_000


@dataclass(frozen=True)
class Coverage:
    """How the known pairs cover one modality: distance: (n,) of each row to the nearest paired one (while there is
    none: to the mean direction); radius: the largest of it among the open rows; search: where farthest-first stands,
    None while nothing is paired; spread: mean distance of the rows to their mean direction, 1 where not asked for."""

    space: Space
    open_: np.ndarray
    distance: np.ndarray
    radius: float
    search: FarthestFirst | None
    spread: float = 1.0

    @classmethod
    def of(
        cls, space: Space, paired: np.ndarray, open_: np.ndarray, present: np.ndarray, *, spread: bool
    ) -> Coverage:
        """One pass over the rows, or two more without pairs or for the spread."""
        to_mean = space.to_mean(present) if spread or not len(paired) else None
        scale = float(to_mean[present].mean()) if spread and to_mean is not None else 1.0
        if not len(paired):
            assert to_mean is not None
            return cls(space, open_, to_mean, float(to_mean[open_].max()), None, scale)
        search = FarthestFirst(space, paired, open_)
        distance = space.distance(np.maximum(search.bound.astype(np.float64), 0.0))
        return cls(space, open_, distance, float(space.distance(search.radius() ** 2)), search, scale)

    def farthest_first(self, size: int, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, distance of each to the nearest paired or earlier row) of the core-set, ``size`` at most, without
        the rows ``left_out``; without pairs the first is the open row nearest the mean, at distance inf."""
        open_ = self.open_.copy()
        open_[left_out] = False
        size = min(size, int(open_.sum()))
        if self.search is not None:
            self.search.leave_out(left_out)
            self.search.until(size)
            found = self.search.found()
            return found.picks, self.space.distance(found.radii**2)
        first = int(np.argmin(np.where(open_, self.distance, np.inf)))
        open_[first] = False
        search = FarthestFirst(self.space, np.array([first]), open_)
        search.until(size - 1)
        found = search.found()
        rows = np.concatenate([[first], found.picks]).astype(np.int64)
        return rows, np.concatenate([[np.inf], self.space.distance(found.radii**2)])

    def clusters(self, size: int, left_out: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The same by k-means with ``size`` clusters: the row nearest each centre, largest cluster first, then the
        next nearest where clusters are empty. Denser regions get more of it (unaligned.md section 6.3c; ours)."""
        open_ = self.open_.copy()
        open_[left_out] = False
        rows = np.flatnonzero(open_)
        size = min(size, len(rows))
        found = cluster_rows(self.space, rows, size, rng, rounds=KMEANS_ROUNDS, sample_rows=KMEANS_ROWS)
        members = np.bincount(found.assignment, minlength=size)[found.assignment]
        order = np.lexsort((rows, -members, rank_in_cluster(found.assignment, found.squared)))[:size]
        return rows[order], self.distance[rows[order]]

    def outliers(self, rng: np.random.Generator) -> np.ndarray:
        """Open rows whose mean distance to their 10 nearest open rows is above the 99th percentile; with more than
        ``GUARD_ROWS`` open rows the nearest of a uniform sample (section 6.3d; ours)."""
        rows = np.flatnonzero(self.open_)
        base, _ = uniform_sample(rows, GUARD_ROWS, rng)
        _, squared = nearest_neighbours(self.space, rows, base, GUARD_NEIGHBOURS)
        if not squared.shape[1]:
            return rows[:0]
        mean = self.space.distance(squared).mean(axis=1)
        return rows[mean > np.percentile(mean, GUARD_PERCENTILE)]


@dataclass(frozen=True)
class CoreRows:
    """The core-set in the order it was found: rows of ``modality``, cover: distance at the pick, share: percentile of
    their distance to the nearest paired row among the open ones; radii: (2,) image, text, nan where not looked at."""

    modality: str
    rows: np.ndarray
    cover: np.ndarray
    share: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class CoverStrategy(PairStrategy):
    """The options and the work of steps 1 and 2, which ``three_step`` and ``pair_coreset`` share.

    Which statement is whose (unaligned.md section 2): the comparison of max-min distances and the farthest-first
    core-set are quoted by reviewers of the paper; which features and which distance it takes was not recoverable, so
    ``space`` and ``distance`` are ours, and so are the rules but formula1, the other core-set, guard, floor and cold
    start.
    """

    space: str = option(
        "joint", "vectors of steps 1 and 2: the current model's, the frozen ones, or both", choices=SPACES
    )
    distance: str = option(
        "cosine", "1 - cosine, or the Euclidean distance of the rows as they are", choices=DISTANCES
    )
    rule: str = option(
        "formula1", "which modality a round asks about: larger radius, relative or in turn", choices=RULES
    )
    coreset: str = option("farthest", "core-set by farthest-first, or by k-means", choices=("farthest", "kmeans"))
    outlier_guard: bool = option(False, "leave out of the core-set what is far from its own neighbours")
    floor_share: float = option(0.0, "share of the rounds that each modality has at least", low=0.0, high=0.5)
    cold_start: str = option(
        "central",
        "first round while nothing is paired: from the mean on, or at random",
        choices=("central", "random"),
    )

    def core(self, pairs: Pairs, open_: Open, size: int, rng: np.random.Generator) -> CoreRows:
        """Choose the modality and ``size`` rows of it, or all that are open."""
        found = {}
        for modality, mask in open_.items():
            space = Space.of(pairs, modality, self.space, self.distance)
            present, paired = pairs.present[modality], pairs.paired(modality)
            found[modality] = Coverage.of(space, paired, mask, present, spread=self.rule == "relative")
        radii = {modality: c.radius / c.spread if c.spread > 0 else c.radius for modality, c in found.items()}
        modality = chosen_modality(self.rule, radii, pairs.rounds_asked, self.floor_share)
        chosen = found[modality]
        left_out = chosen.outliers(rng) if self.outlier_guard else np.empty(0, dtype=np.int64)
        if self.coreset == "kmeans":
            rows, cover = chosen.clusters(size, left_out, rng)
        else:
            rows, cover = chosen.farthest_first(size, left_out)
        share = percentile(chosen.distance[rows], chosen.distance[chosen.open_])
        return CoreRows(modality, rows, cover, share, np.array([radii.get(m, np.nan) for m in MODALITIES]))


def chosen_modality(rule: str, radii: Mapping[str, float], asked: Sequence[str], floor_share: float) -> str:
    """The modality of the next round, among those of ``radii``: the one with the larger radius, images on a tie, or
    ("alternate") the other than last time, images first.

    Where that would leave the other modality with fewer than floor(floor_share * rounds) of the rounds so far, this
    one included, the other has its turn (unaligned.md section 6.9; ours). asked: the rounds so far.
    """
    if len(radii) == 1:
        return next(iter(radii))
    image, text = MODALITIES
    if rule == "alternate":
        chosen = other(asked[-1]) if asked else image
    else:
        chosen = image if radii[image] >= radii[text] else text
    wanted = int(np.floor(floor_share * (len(asked) + 1) + 1e-9))
    return other(chosen) if list(asked).count(other(chosen)) < wanted else chosen
