"""What "none of these" and equal contents leave to ask about and to offer; all of it is ours."""

from __future__ import annotations

from collections.abc import Sequence


def rest_end(rounds: Sequence[int], first: int, longest: int | None = None) -> int:
    """The round from which on an item may be asked about again that was asked about in vain in these rounds.

    It rests ``first`` rounds after the first of them and twice as long after each further one, ``longest`` at most.
    """
    length = first * 2 ** (len(rounds) - 1)
    return max(rounds) + (length if longest is None else min(length, longest))
