"""What "none of these" and equal contents leave to ask about and to offer; all of it is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Rounds after which an item that was answered "none of these" is asked about again, the first time; twice as many
# each further time, this many at most. By then the model has other guesses, and it is shown other candidates.
COOL_DOWN, LONGEST_REST = 3, 12


def places_of(wanted: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Where in ``ordered`` (ascending) those of ``wanted`` stand that are in it, in the order of ``wanted``."""
    at = np.searchsorted(ordered, wanted)
    here = at < len(ordered)
    here[here] = ordered[at[here]] == wanted[here]
    return at[here]


def rest_end(rounds: Sequence[int], first: int, longest: int | None = None) -> int:
    """The round from which on an item may be asked about again that was asked about in vain in these rounds.

    It rests ``first`` rounds after the first of them and twice as long after each further one, ``longest`` at most.
    """
    length = first * 2 ** (len(rounds) - 1)
    return max(rounds) + (length if longest is None else min(length, longest))


def one_of_each(contents: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """(n,) bool: of the items on offer the first of each content, as nobody could tell the others from it.

    contents: (n,) int64, equal for items of equal content; offered: (n,) bool.
    """
    rows = np.flatnonzero(offered)
    _, first = np.unique(contents[rows], return_index=True)
    mask = np.zeros(len(offered), dtype=bool)
    mask[rows[first]] = True
    return mask


def still_offered(
    contents: np.ndarray, offered: np.ndarray, refused: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Item -> rows on offer, ascending, whose content is that of a row it was shown in vain.

    contents, offered: as in ``one_of_each``, each content on offer once at most; refused: item -> rows.
    """
    rows = np.flatnonzero(offered)
    rows = rows[np.argsort(contents[rows], kind="stable")]
    ordered = contents[rows]
    return {item: np.sort(rows[places_of(np.unique(contents[seen]), ordered)]) for item, seen in refused.items()}
