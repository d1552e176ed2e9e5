"""ASCMR: informative image-text pairs, spread over what the pool means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.explain import percentile
from backend.strategies.kernels.allocation import (
    Allocation,
    Relaxation,
    frank_wolfe,
    greedy_allocation,
    improved,
    objective,
    penalty_scale,
)
from backend.strategies.kernels.density import MatchKernel, mean_similarity, reference_density
from backend.strategies.kernels.kmeans import cluster_rows
from backend.strategies.kernels.pair_similarity import present_rows
from backend.strategies.kernels.probabilistic_selector import MODALITIES, Selector, SelectorSettings
from backend.strategies.kernels.selector_scores import PoolScores, score_pool
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool

# Picks times candidates up to which swaps hold a column of the kernel for every pick (80 MB).
SWAP_NUMBERS = 20_000_000
# Similarities that the certificate may compute, and its rounds at most.
CERTIFICATE_NUMBERS = 100_000_000
CERTIFICATE_ROUNDS = 50
# Records that a density percentile is taken against, and that stand for the pool there.
REFERENCES = 1024
REGIONS = 12
REGION_SAMPLE = 10_000


@dataclass(frozen=True)
class Ascmr(LabelledStrategy):
    """Pairs that a probabilistic selector finds uncertain, no two of them alike.

    A selector is trained anew on all pairs, without labels, and gives each image and text a Gaussian. Information
    I = alpha x rank of (|Sigma_v| + |Sigma_t|) + (1 - alpha) x rank of -ln p(image matches text). The batch S has
    much of: mean of I / max I - density_weight x A_S, A_S the mean match probability of two fused pairs of S. By
    greedy choice, then swaps where picks x candidates allow ("auto"); how far at most it is below the best is told.

    The paper's text was not at hand: formulas come from a reader's notes, the authors' code does not run. Ours are:
    anchors in place of batch mates, the variance floor, ranks, the temper T (both match probabilities are taken of
    Gaussians with T-fold variances or as ln p / T), the weight on A_S, the solvers, the reduction to ``dimensions``,
    ``conflict_cap``. ``compat="note"`` keeps the noted formulas: attention in the batch, relu variances, T = 1 unless
    given, I = alpha (|Sigma_v| + |Sigma_t|) + 1 - p, no pair left out for its conflict, A_S in all dimensions. Ours
    there too: embeddings of mean square 1, the floor, the loss in two means, F (the noted objective weighs A_S by
    nothing), solvers, ``candidates``. The authors' results are not reproduced by either.

    Parts: image_uncertainty, text_uncertainty, conflict, density: shares of the unlabelled pairs below; worth and
    penalty: what the pick adds to F and takes from it, the rest of the batch given; rank_alone: its rank by I;
    nearest_pick, nearest_similarity: the most alike of the picks before it (-1, 0 for the first); region,
    region_picks, region_share: k-means cell, the cell's part of the batch and of the pool. Of the batch, the same for
    each pick: batch_density (A_S), top_density (A of the most informative), random_density, gap (no batch of
    candidates is better by more), left_out_gain (no exchange of a pick for a pair that was no candidate for want of
    information gains more; 0 where that loses nothing), temper.

    Source: Zhang, Yang, Qi, Qian and Xu, Active Supervised Cross-Modal Retrieval, IEEE TPAMI 2025,
    doi 10.1109/TPAMI.2025.3550526, as in ascmr.md sections 2 and 5.
    """

    name: ClassVar[str] = "ascmr"
    title: ClassVar[str] = "ASCMR (probabilistic selector, density-aware)"
    paper: ClassVar[str] = "Zhang et al., IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3550526"
    needs: ClassVar[frozenset[str]] = frozenset({"shared_space"})
    complexity: ClassVar[str] = (
        "O(steps B^2 D + n (M D + D^2) + k n d) time, O(n d) memory, d = dimensions, M anchors, B pairs a step"
    )

    density_weight: float = option(1.0, "lambda: what likeness within the batch costs", low=0.0, high=1e6)
    alpha: float = option(0.5, "weight of each side's own uncertainty against their conflict", low=0.0, high=1.0)
    temper: float = option(0.0, "T, flattens match probabilities; 0: a quarter of the width", low=0.0, high=1e6)
    conflict_cap: float = option(
        0.02, "share of the pairs, those in most conflict, that is left out", low=0.0, high=0.9
    )
    solver: str = option("auto", "how the batch is chosen", choices=("auto", "greedy", "swap", "frank_wolfe"))
    candidates: int = option(
        100_000, "pairs, those of most information, that are candidates (4 a pick where that is more)", low=100
    )
    dimensions: int = option(32, "principal directions that likeness is taken in", low=1, high=4096)
    steps: int = option(200, "training steps of the selector at most", low=1, high=100_000)
    sample_rows: int = option(20_000, "pairs the selector learns from at most", low=100)
    compat: str = option(
        "none",
        "note: the formulas as noted from the paper; conflict_cap and dimensions are not looked at then",
        choices=("none", "note"),
    )

    @property
    def _noted(self) -> bool:
        return self.compat == "note"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        features = {name: pool.features[name] for name in MODALITIES}
        present = {name: present_rows(matrix) for name, matrix in features.items()}
        width = features["image"].shape[1]
        settings, dimensions = self._settings(width), width if self._noted else self.dimensions
        complete = np.flatnonzero(present["image"] & present["text"])
        selector = Selector.trained(features, complete, settings, int(rng.integers(2**32)))
        scores = score_pool(selector, features, dimensions=dimensions, temper=settings.temper)
        information, shares = self._information(scores, present, ~pool.labelled, settings.temper)
        calm = self._calm(pool.unlabelled, shares["conflict"], count)
        candidates, most_left_out = self._candidates(calm, information[calm], count)
        worth = information[candidates]
        kernel = scores.kernel.at(candidates)
        batch = self._allocated(worth, kernel, count)
        left = worth / count - penalty_scale(count, self.density_weight) * batch.penalties
        utilities = float(left.min()) - 4.0 + information
        utilities[calm] += 2.0
        utilities[candidates] = left
        picks = candidates[batch.picks]
        parts = {name: values[picks] for name, values in shares.items()}
        parts |= self._figures(worth, kernel, batch, rng)
        missed = max(most_left_out / count - float(left[batch.picks].min()), 0.0)
        whole = {"temper": settings.temper, "left_out_gain": missed}
        return picks, utilities, {**parts, **{name: np.full(count, value) for name, value in whole.items()}}

    def _settings(self, width: int) -> SelectorSettings:
        temper = self.temper or (1.0 if self._noted else max(width / 4.0, 1.0))
        return SelectorSettings(
            temper=temper,
            divergence=1.0 if self._noted else 1.0 / width,
            form="note" if self._noted else "clean",
            steps=self.steps,
            sample_rows=self.sample_rows,
        )

    def _information(
        self, scores: PoolScores, present: Mapping[str, np.ndarray], among: np.ndarray, temper: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(information (n,) between 0 and 1, shares of the rows ``among`` that lie below, by what).

        A pair that lacks one side has no conflict to rank (one half), and is ranked by the uncertainty of the other
        side; one that lacks both has no information (ours).
        """
        image, text = present["image"], present["text"]
        both = image & text
        shares = {
            "image_uncertainty": _share_below(scores.image_size, among & image, image, 0.0),
            "text_uncertainty": _share_below(scores.text_size, among & text, text, 0.0),
            "conflict": _share_below(-scores.log_match, among & both, both, 0.5),
        }
        if self._noted:
            # Lengths of an absent side mean nothing, and nothing matches it.
            sizes = image * scores.image_size + text * scores.text_size
            blend = self.alpha * sizes - both * np.expm1(scores.log_match / temper)
        else:
            alone = np.where(image, shares["image_uncertainty"], shares["text_uncertainty"])
            spread = _share_below(scores.image_size + scores.text_size, among & both, both, 0.0)
            blend = self.alpha * np.where(both, spread, alone) + (1.0 - self.alpha) * shares["conflict"]
        blend = np.where(image | text, blend, 0.0)
        most = float(blend[among].max())
        return blend / most if most > 0 else blend, shares

    def _calm(self, unlabelled: np.ndarray, conflict: np.ndarray, count: int) -> np.ndarray:
        """The unlabelled rows but those in most conflict, ``count`` at least; ascending. As noted, all of them."""
        allowed = len(unlabelled) - int((0.0 if self._noted else self.conflict_cap) * len(unlabelled))
        calm = np.argsort(conflict[unlabelled], kind="stable")[: max(allowed, count)]
        return np.sort(unlabelled[calm])

    def _candidates(self, rows: np.ndarray, information: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """(the rows of most information, ascending, and the most among the others, -inf without any)."""
        most = max(self.candidates, 4 * count)
        if len(rows) <= most:
            return rows, -np.inf
        order = np.argsort(-information, kind="stable")
        return np.sort(rows[order[:most]]), float(information[order[most]])

    def _allocated(self, worth: np.ndarray, kernel: MatchKernel, count: int) -> Allocation:
        weight = self.density_weight
        batch = greedy_allocation(worth, kernel, count, weight)
        small = count * len(worth) <= SWAP_NUMBERS
        if self.solver == "frank_wolfe":
            found = frank_wolfe(worth, kernel, count, weight, start=batch, rounds=CERTIFICATE_ROUNDS).rounded(count)
            batch = Allocation.of(found[np.argsort(-worth[found], kind="stable")], kernel)
        if self.solver in ("swap", "frank_wolfe") or (self.solver == "auto" and small):
            batch = improved(worth, kernel, batch, weight)
        return batch

    def _figures(
        self, worth: np.ndarray, kernel: MatchKernel, batch: Allocation, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """What is told of each pick and of the batch; positions are those of the candidates."""
        picks, count, n = batch.picks, len(batch.picks), len(worth)
        # In the numbers the solvers compare, so that ties are the same ones.
        order = np.argsort(-(worth / count), kind="stable")
        rank = np.empty(n)
        rank[order] = np.arange(1, n + 1)
        near, where = _nearest_before(kernel.at(picks))
        references = np.sort(rng.choice(n, min(n, REFERENCES), replace=False))
        dense = reference_density(kernel, np.concatenate([picks, references]), references)
        region, of_batch, of_pool = _regions(kernel, picks, rng)
        whole = {
            "batch_density": mean_similarity(kernel, picks),
            "top_density": mean_similarity(kernel, order[:count]),
            "random_density": mean_similarity(kernel, rng.choice(n, count, replace=False)),
            "gap": self._certificate(worth, kernel, batch).bound
            - objective(worth, kernel, picks, self.density_weight),
        }
        return {
            "density": percentile(dense[:count], dense[count:]),
            "worth": worth[picks] / count,
            "penalty": penalty_scale(count, self.density_weight) * batch.penalties[picks],
            "rank_alone": rank[picks],
            "nearest_pick": where,
            "nearest_similarity": near,
            "region": region,
            "region_picks": of_batch,
            "region_share": of_pool,
            **{name: np.full(count, max(value, 0.0)) for name, value in whole.items()},
        }

    def _certificate(self, worth: np.ndarray, kernel: MatchKernel, batch: Allocation) -> Relaxation:
        """A bound on what any batch reaches, in as many rounds as ``CERTIFICATE_NUMBERS`` allow, or none."""
        rounds = min(CERTIFICATE_NUMBERS // (len(worth) * len(batch.picks)), CERTIFICATE_ROUNDS)
        return frank_wolfe(worth, kernel, len(batch.picks), self.density_weight, start=batch, rounds=rounds)


def _share_below(values: np.ndarray, among: np.ndarray, known: np.ndarray, otherwise: float) -> np.ndarray:
    """Percentile of each value among some of them, ties counted half; ``otherwise`` where nothing is known."""
    if not among.any():
        return np.full(len(values), otherwise)
    return np.where(known, percentile(values, values[among]), otherwise)


def _nearest_before(kernel: MatchKernel) -> tuple[np.ndarray, np.ndarray]:
    """(similarity, position) of the most alike of the earlier picks; (0, -1) for the first."""
    count = len(kernel)
    near, where = np.zeros(count), np.full(count, -1.0)
    for place in range(1, count):
        earlier = kernel.column(place)[:place]
        where[place] = float(earlier.argmax())
        near[place] = float(earlier.max())
    return near, where


def _regions(
    kernel: MatchKernel, picks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(k-means cell of each pick by fused mean, the cell's share of the batch, its share of the candidates)."""
    n = len(kernel)
    cells = min(REGIONS, max(n // 10, 1))
    view = UnitView({"fused": kernel.means.T})
    found = cluster_rows(view, np.arange(n), cells, rng, rounds=10, sample_rows=REGION_SAMPLE).assignment
    of_pool = np.bincount(found, minlength=cells) / n
    mine = found[picks]
    of_batch = np.bincount(mine, minlength=cells) / len(picks)
    return mine.astype(np.float64), of_batch[mine], of_pool[mine]
