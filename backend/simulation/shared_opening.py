"""Replays round by round whose first round is the same for every strategy, and is made once for all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from backend.simulation.drawn_set import DrawnSet

Measures = dict[str, float]


class Standing(Protocol):
    """Where a replayed project stands; rounds: what was measured after each."""

    @property
    def rounds(self) -> tuple[Measures, ...]: ...


D = TypeVar("D", bound=DrawnSet)
S = TypeVar("S", bound=Standing)
A = TypeVar("A")


class SharedOpening(Generic[D, S, A]):
    """Rounds of one kind of replay.

    begin : (set, scenario, seed) -> where the project stands after the first round
    after_round : (set, scenario, before, strategy, seed) -> where it stands after one more
    """

    # Replays that share an opening follow one another, so few need to be kept.
    KEPT = 2

    def __init__(self, begin: Callable[[D, str, int], S], after_round: Callable[[D, str, S, A, int], S]) -> None:
        self._begin, self._after_round = begin, after_round
        self._kept: OrderedDict[tuple[object, ...], S] = OrderedDict()

    def opening(self, data: D, scenario: str, seed: int) -> S:
        """After the first round, kept for the strategies that share it."""
        key = (data.name, data.fingerprint, data.batch_size, data.budget, scenario, seed)
        if key not in self._kept:
            self._kept[key] = self._begin(data, scenario, seed)
            while len(self._kept) > self.KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def rounds(self, data: D, scenario: str, strategy: A, seed: int) -> tuple[Measures, ...]:
        """What was measured after each round until the budget is spent."""
        standing = self.opening(data, scenario, seed)
        while standing.rounds[-1]["n_labels"] < data.budget:
            standing = self._after_round(data, scenario, standing, strategy, seed)
        return standing.rounds

    def forget(self) -> None:
        """Keep no opening any more."""
        self._kept.clear()
