"""How many candidates to show, from the ranks of the truth in random queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import InvalidOption


@dataclass(frozen=True)
class CandidateCount:
    """k: candidates to show; promised: whether k covers 1 - alpha by the conformal argument, False where there are
    too few audit queries or their ranks reach beyond k_max; coverage: share of the audit queries whose truth is among
    the first k, audited: their number; acquired_coverage, acquired: the same of the strategy's own queries, which
    promise nothing (they are not exchangeable). Coverages are nan of no queries."""

    k: int
    promised: bool
    coverage: float
    audited: int
    acquired_coverage: float
    acquired: int


def conformal_candidates(
    ranks: Sequence[float] | np.ndarray, alpha: float, k_max: int, *, acquired: Sequence[float] | np.ndarray = ()
) -> CandidateCount:
    """Split-conformal number of candidates: the ceil((n + 1)(1 - alpha))-th smallest audit rank, else ``k_max``.

    ranks: of the truth at query time in n answered *audit* queries (drawn at random), 1 = best, inf where it was not
    ranked; alpha: share of misses allowed; acquired: ranks of the other queries, reported only. A new random query
    finds its truth among k with probability 1 - alpha at least, where ``promised``.

    Source: split conformal prediction on ranks, Vovk et al., 2005, and Gwon et al., arXiv 2502.06209, as in
    unaligned.md section 6.5; that it picks the length of a candidate list is ours.
    Raises InvalidOption for alpha outside 0 to 1, k_max below 1, or a rank below 1.
    """
    audit, own = np.asarray(ranks, dtype=np.float64), np.asarray(acquired, dtype=np.float64)
    if not 0.0 < alpha < 1.0:
        raise InvalidOption(f"alpha is {alpha}; it is a share of misses, between 0 and 1")
    if k_max < 1:
        raise InvalidOption(f"k_max is {k_max}; a query shows 1 candidate or more")
    for name, values in (("ranks", audit), ("acquired", own)):
        if not (values >= 1).all():
            raise InvalidOption(f"{name} hold {values[~(values >= 1)][0]}; the best candidate has rank 1")
    # A trace less, so that (n + 1)(1 - alpha) of a whole number is not lifted to the next by rounding.
    place = max(int(np.ceil((len(audit) + 1) * (1.0 - alpha) - 1e-9)), 1)
    rank = float(np.sort(audit)[place - 1]) if place <= len(audit) else np.inf
    promised = rank <= k_max
    k = int(rank) if promised else k_max
    return CandidateCount(k, promised, _share(audit, k), len(audit), _share(own, k), len(own))


def _share(ranks: np.ndarray, k: int) -> float:
    return float((ranks <= k).mean()) if len(ranks) else float("nan")
