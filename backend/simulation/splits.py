"""Which items are scored on: a stratified quarter, with items that give each other away on one side."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backend.errors import ReplayInvalid
from backend.simulation.pairs import Pairs, text_key

FOLDS = 4
# random: equal texts on one side (the protocol of the published figures); grouped: also texts that differ in digits
# and punctuation only, such as "car 1" and "car 2".
SPLITS = ("random", "grouped")


def stratified_split(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return a (n,) bool mask that holds out a quarter: stratified, items of one group on one side."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    _, test = next(folds.split(np.zeros((len(labels), 1)), labels, groups))
    mask = np.zeros(len(labels), dtype=bool)
    mask[test] = True
    return mask


def strata(labels: np.ndarray) -> np.ndarray:
    """(n,) what a split is stratified by: the class, or the rarest of several labels that has a record for each fold.

    labels: (n,) classes, or (n, C) 0/1. Records of no such label are one stratum.
    """
    if labels.ndim == 1:
        return labels
    taken = np.full(len(labels), -1, dtype=np.int64)
    for label in np.argsort(-labels.sum(axis=0), kind="stable"):
        members = labels[:, label] > 0
        if members.sum() >= FOLDS:
            taken[members] = label
    _, place, counts = np.unique(taken, return_inverse=True, return_counts=True)
    return np.where(counts[place] < FOLDS, -1, taken)


def random_split(pairs: Pairs, seed: int) -> np.ndarray:
    """Return a (n,) bool mask that holds out a quarter: stratified, items with the same text on one side."""
    return stratified_split(pairs.labels, pairs.groups, seed)


def drawn_sides(name: str, groups: np.ndarray, held_out: int, pool: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a pool of ``pool`` pairs and rows to be scored on, ascending: whole groups at random until the
    sizes are reached. ``name`` is the set's, for the refusal.

    Raises
    ------
    ReplayInvalid
        There are too few pairs.
    """
    names, group = np.unique(groups, return_inverse=True)
    place = np.random.default_rng([seed, 1]).permutation(len(names))[group.reshape(-1)]
    # Pairs up to and with each group, in the order of the draw.
    upto = np.cumsum(np.bincount(place))
    tested = int(np.searchsorted(upto, held_out))
    used = int(np.searchsorted(upto, held_out + pool))
    if used >= len(names):
        raise ReplayInvalid(
            f"{name} has {len(groups)} pairs, too few for a pool of {pool} and {held_out} to score on; "
            "replay a larger set"
        )
    return np.flatnonzero((place > tested) & (place <= used)), np.flatnonzero(place <= tested)


def same_content(texts: Iterable[str], others: Iterable[str] | None = None) -> np.ndarray:
    """Return (n,) group numbers, equal for equal texts (case and spaces aside); ``others`` (addresses of pictures)
    speak where there is no text."""
    return _numbered((" ".join(text.casefold().split()) for text in texts), others)


def near_duplicates(texts: Iterable[str], others: Iterable[str] | None = None) -> np.ndarray:
    """Return (n,) group numbers, equal for texts with the same letters: case, digits and punctuation aside;
    ``others`` (addresses of pictures) speak where there is no text."""
    return _numbered(map(text_key, texts), others)


def _numbered(keys: Iterable[str], others: Iterable[str] | None) -> np.ndarray:
    numbers: dict[tuple[str, str], int] = {}
    pairs = zip(keys, others, strict=True) if others is not None else ((key, "") for key in keys)
    named = [(key, "") if key else ("", other) for key, other in pairs]
    return np.array([numbers.setdefault(name, len(numbers)) for name in named], dtype=np.int64)
