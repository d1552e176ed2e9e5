"""What "none of these" and equal contents leave to ask about and to offer; all of it is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


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


def unrefused(contents: np.ndarray, offered: np.ndarray, refused: np.ndarray) -> np.ndarray:
    """(n,) bool: items on offer whose content is that of none of the rows ``refused``."""
    return offered & ~np.isin(contents, contents[refused])


def exhausted(contents: np.ndarray, offered: np.ndarray, refused: Mapping[int, np.ndarray]) -> list[int]:
    """Items that nothing is left on offer for; refused: item -> the rows it was shown in vain."""
    count = int(offered.sum())
    return [
        item
        for item, rows in refused.items()
        # Fewer than there are cannot be all of them.
        if len(rows) >= count and not unrefused(contents, offered, rows).any()
    ]
