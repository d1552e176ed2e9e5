"""Class balance that any strategy can wear: predicted-rare classes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backend.errors import InvalidOption, StrategyUnsuited
from backend.strategies.audit import aligned
from backend.strategies.base import Strategy
from backend.strategies.explain import own_parts
from backend.strategies.pool import Pool

RULES = ("pcb", "tail_first")
# Part of the unlabelled records that PCB shortlists (the authors' scripts).
SHORTLIST_SHARE = 0.1
# The strategy is asked for this many batches, which are on the shortlist however small the pool is (ours); what it
# ranks behind them completes it. More picks would cost batch strategies a multiple of their time at a thousand.
PICKED_BATCHES = 3


@dataclass(frozen=True)
class Balanced(Strategy):
    """The strategy ``inner`` shortlists, then each pick goes to the class with the fewest labels and picks so far.

    "pcb": the shortlist is the strategy's first tenth of the unlabelled records (three batches at least); a record's
    class is the predicted one. "tail_first": every unlabelled record. Within a class the strategy's order decides; a
    class without a record left is passed over. Part ``class_count``: labels and picks of its class before the pick.

    Differences to the authors' code, which are ours: PCB draws within a class at random and, once the rarest class
    has no candidate, fills the whole rest of the batch at random; here the next rarest class is served. Tail First
    Sampling takes the entropy as order and counts retrieved pretraining images as labels; here it is the worn
    strategy's order and there are none. With several labels a record PCB is not defined and refused; tail_first takes
    a record as a candidate of all classes predicted for it (the likeliest if none is) and counts it for all (ours).
    While nothing is labelled there is no prediction and the strategy's batch stands.

    Source: Bang, Ahn and Lee, Active Prompt Learning in Vision Language Models (PCB), CVPR 2024, arXiv 2311.11178;
    Wang, Wang and Kong, Tail First Sampling, 2025, arXiv 2506.01724.
    """

    name: ClassVar[str] = "class_balance"
    title: ClassVar[str] = "Class balance"
    paper: ClassVar[str] = "Bang et al., CVPR 2024, arXiv 2311.11178; Wang et al., 2025, arXiv 2506.01724"
    complexity: ClassVar[str] = "O(n log n + n C + k C) beside three batches of the strategy's"

    inner: Strategy
    rule: str

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InvalidOption(f"balance is {self.rule!r}; choose one of {['none', *RULES]}")

    def check(self, *, multi_label: bool, **project: Any) -> None:
        """As the strategy's own; raises StrategyUnsuited for PCB with several labels a record."""
        self.inner.check(multi_label=multi_label, **project)
        self._check_labels(multi_label)

    def _check_labels(self, multi_label: bool) -> None:
        if multi_label and self.rule == "pcb":
            raise StrategyUnsuited(
                "balance='pcb' is defined for single-choice projects only; use balance='tail_first' or 'none'"
            )

    def reason_in(self, pool: Pool) -> str:
        """The strategy's own."""
        return self.inner.reason_in(pool)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        if pool.probabilities is None:
            chosen = self.inner.select(pool, count, rng)
            return chosen.indices, chosen.utilities, own_parts(chosen.parts)
        left = len(pool) - int(pool.labelled.sum())
        length = left
        if self.rule == "pcb":
            length = min(left, max(PICKED_BATCHES * count, round(SHORTLIST_SHARE * left)))
        chosen = self.inner.select(pool, min(length, PICKED_BATCHES * count), rng)
        shortlist = chosen.queue(pool.labelled, length)
        places, before = rarest_first(candidates_by_class(pool, shortlist), label_counts(pool), count)
        picks = shortlist[places]
        parts = aligned(own_parts(chosen.parts), np.where(places < len(chosen.indices), places, -1))
        # The strategy's picks that were passed over keep their lead in the reserve.
        return picks, chosen.utilities, {**parts, "class_count": before}


def label_counts(pool: Pool) -> np.ndarray:
    """(C,) labels given for each class."""
    known = pool.labels[pool.labelled]
    if pool.multi_label:
        return np.asarray((known > 0).sum(axis=0), dtype=np.int64)
    return np.bincount(known, minlength=pool.n_classes)


def candidates_by_class(pool: Pool, rows: np.ndarray) -> list[np.ndarray]:
    """For each class the positions in ``rows`` of the records predicted as it, ascending."""
    p = pool.require_probabilities()
    if not pool.multi_label:
        predicted = np.concatenate([p[rows[b : b + 65_536]].argmax(axis=1) for b in range(0, len(rows), 65_536)])
        order = np.argsort(predicted, kind="stable")
        return np.split(order, np.searchsorted(predicted[order], np.arange(1, pool.n_classes)))
    member = p[rows] >= 0.5
    none = np.flatnonzero(~member.any(axis=1))
    member[none, p[rows[none]].argmax(axis=1)] = True
    return [np.flatnonzero(member[:, c]) for c in range(pool.n_classes)]


def rarest_first(candidates: list[np.ndarray], counts: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(k positions, count of the served class before each pick): again and again the first candidate of the class
    with the smallest count; ties go to the class whose next candidate comes first.

    A pick counts for every class it is a candidate of. k <= number of distinct candidates. No k of the candidates
    give a smaller sum of squared totals where each has one class (a greedy fill is optimal).
    """
    totals = counts.astype(np.int64).copy()
    at = np.zeros(len(candidates), dtype=np.int64)
    taken: set[int] = set()
    picks: list[int] = []
    before: list[float] = []
    while len(picks) < k:
        best = None
        for label, positions in enumerate(candidates):
            while at[label] < len(positions) and int(positions[at[label]]) in taken:
                at[label] += 1
            if at[label] < len(positions):
                key = (int(totals[label]), int(positions[at[label]]), label)
                best = key if best is None or key < best else best
        assert best is not None, "fewer candidates than picks"
        total, position, _ = best
        taken.add(position)
        picks.append(position)
        before.append(float(total))
        totals[[_holds(positions, position) for positions in candidates]] += 1
    return np.array(picks, dtype=np.int64), np.array(before)


def _holds(ascending: np.ndarray, value: int) -> bool:
    place = int(np.searchsorted(ascending, value))
    return place < len(ascending) and int(ascending[place]) == value
