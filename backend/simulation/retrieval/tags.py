"""Several labels for each pair of a set that has one class a pair: its class, its folders, and frequent words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import DatasetInvalid
from backend.simulation.openclipart import Drawing
from backend.simulation.pairs import Pairs

# Part of the pairs that a folder or a word must occur in to be a label; classes are labels whatever their size.
LEAST_SHARE, MOST_SHARE = 0.01, 0.3
# A label whose pairs are to this part (Jaccard) those of an earlier one says nothing new.
SAME = 0.9
SHORTEST_WORD = 3


@dataclass(frozen=True)
class Tags:
    """labels: (n, C) int8 0/1, at least one a pair; names: (C,)."""

    labels: np.ndarray
    names: Sequence[str]


def tagged(pairs: Pairs, folders: Sequence[Sequence[str]] | None = None) -> Tags:
    """Labels of each pair: its class; folders below it; words of its title and of the name of its class.

    folders: for each pair those it lies in, named so that equal names are one label. Words are runs of letters, three
    at least, case aside and without scikit-learn's English stop words. Folders, then words, each by falling
    frequency, are labels where ``LEAST_SHARE`` to ``MOST_SHARE`` of the pairs have them and no earlier label has
    nearly the same pairs. A word of the name of a class is shared by "face-smiling" and "face-unwell".
    """
    columns = [pairs.labels == c for c in range(len(pairs.classes))]
    names = list(pairs.classes)
    words = [
        words_of(text) | words_of(pairs.classes[label]) for text, label in zip(pairs.texts, pairs.labels, strict=True)
    ]
    for found in ([set(own) for own in folders] if folders else [], words):
        for name, column in _frequent(found):
            if all(_jaccard(column, earlier) < SAME for earlier in columns):
                columns.append(column)
                # A class and a word may have the same name and not the same pairs.
                names.append(name if name not in names else f"{name} (word)")
    return Tags(np.stack(columns, axis=1).astype(np.int8), names)


def words_of(text: str) -> set[str]:
    """Words that may be labels."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found = re.findall(rf"[^\W\d_]{{{SHORTEST_WORD},}}", text.casefold())
    return set(found) - ENGLISH_STOP_WORDS


def drawing_folders(pairs: Pairs, drawings: Iterable[Drawing]) -> list[list[str]]:
    """For each pair of the OpenClipart set the folders below its class, as paths, from its drawing.

    The set holds all drawings of its classes in the order of ``read_drawings``. Raises DatasetInvalid where it does
    not.
    """
    ordered = iter(drawings)
    found = []
    for text, label in zip(pairs.texts, pairs.labels, strict=True):
        wanted = (text, pairs.classes[label])
        own = next((d for d in ordered if d.folders and (d.title, d.folders[0]) == wanted), None)
        if own is None:
            raise DatasetInvalid(
                f"no drawing is left for {wanted}; the cached set is of other packages, build it anew"
            )
        found.append(["/".join(own.folders[:depth]) for depth in range(2, len(own.folders) + 1)])
    return found


def _frequent(found: Sequence[set[str]]) -> Iterable[tuple[str, np.ndarray]]:
    """(name, (n,) bool) by falling frequency, then by name."""
    counts = Counter(name for own in found for name in own)
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if LEAST_SHARE * len(found) <= count <= MOST_SHARE * len(found):
            yield name, np.array([name in own for own in found])


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))
