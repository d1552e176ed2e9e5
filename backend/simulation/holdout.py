"""How good a head is that was fitted on these labels, measured on items that were never in the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backend.learners import LateFusionHead


class Holdout:
    """Scores sets of labelled items on a held-out part of the same data.

    Parameters
    ----------
    features : modality -> (n, D) rows of all items
    labels : (n,) int64, the true class of each
    held_out : (n,) bool, the items that are scored on and never learnt from
    """

    def __init__(
        self, features: Mapping[str, np.ndarray], labels: np.ndarray, held_out: np.ndarray, n_classes: int
    ) -> None:
        self.features, self.labels, self.n_classes = dict(features), labels, n_classes
        self.pool = np.flatnonzero(~held_out)
        self._test = {m: np.asarray(x[held_out], np.float32) for m, x in features.items()}
        self._truth = labels[held_out]

    def accuracy(
        self, chosen: Sequence[int] | np.ndarray, answers: Sequence[int] | np.ndarray | None = None
    ) -> float:
        """Share of held-out items a head fitted on `chosen` gets right; `answers`: their labels, default true."""
        rows = np.asarray(chosen)
        given = self.labels[rows] if answers is None else np.asarray(answers)
        head = LateFusionHead.fit(
            {m: np.asarray(x[rows], np.float32) for m, x in self.features.items()},
            given,
            n_classes=self.n_classes,
            calibrate=False,
        )
        return float((head.probabilities(self._test).argmax(1) == self._truth).mean())

    def random_replays(self, sizes: Sequence[int], repeats: int, seed: int) -> np.ndarray:
        """(repeats, len(sizes)) accuracies of labelling in random order; each row is one growing order."""
        curves = []
        for number in range(repeats):
            order = np.random.default_rng([seed, number]).permutation(self.pool)
            curves.append([self.accuracy(order[:size]) for size in sizes])
        return np.array(curves)


def labels_saved(sizes: Sequence[int], curve: np.ndarray, goal: float) -> float:
    """Share of the labels that were not needed to reach `goal`, between sizes by a straight line; 0 when never.

    Source: label-efficiency protocol of this project (docs/results.md): 1 - n / n_final, where the curve first
    reaches the final accuracy of random labelling.
    """
    reached = np.flatnonzero(np.asarray(curve) >= goal)
    if len(reached) == 0:
        return 0.0
    at = int(reached[0])
    needed = float(sizes[at])
    if at > 0:
        low, high = float(curve[at - 1]), float(curve[at])
        needed = sizes[at - 1] + (sizes[at] - sizes[at - 1]) * (goal - low) / (high - low)
    return 1.0 - needed / sizes[-1]
