"""k-means++ seeding as the authors of BADGE and BMMAL do it, and the rows it runs on, written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backend.strategies.kernels.kmeanspp import F64, Seeding
from backend.strategies.kernels.outer_rows import Centres, OuterRows, Rows, lower_to, squared_norms


def materialised(rows: OuterRows, indices: Rows) -> np.ndarray:
    """The rows themselves, (b, C D) float64 in class-major order."""
    left, right = rows.factors(indices, np.dtype(np.float64))
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


def sequential_seeding(
    rows: OuterRows,
    k: int,
    uniforms: Iterator[float],
    *,
    candidates: np.ndarray | None = None,
    cdf_dtype: np.dtype = F64,
    watch: Callable[[int, np.ndarray], None] | None = None,
) -> Seeding:
    """D^2 sampling as BADGE and BMMAL do it, one pass over the rows for each pick; time O(n k (C + D)).

    The first pick has the largest norm (lowest index on ties). Each further one takes uniforms from the iterator:
    the first index whose running sum of d^2 / sum d^2, in ``cdf_dtype``, reaches the draw; a draw that lands on a
    pick is discarded. candidates: (n,) bool, rows that may be picked. watch(count, distances) sees the unsquared
    distances used for the next draw, after ``count`` picks. Source: bmmal.md section 2.4.
    """
    norms = squared_norms(rows, F64)
    allowed = np.ones(len(rows), dtype=bool) if candidates is None else candidates
    k = min(k, int(allowed.sum()))
    if k == 0:
        return Seeding(np.empty(0, dtype=np.int64), np.zeros(len(rows)), norms)
    weights = np.where(allowed, np.inf, 0.0)
    picks = [int(np.argmax(np.where(allowed, norms, -1.0)))]
    chosen = set(picks)
    while True:
        lower_to(rows, norms, weights, Centres.of(rows, picks[-1:]), F64)
        if watch is not None:
            watch(len(picks), np.sqrt(weights))
        if len(picks) == k:
            break
        total = weights.sum()
        open_rows = np.flatnonzero(allowed)
        if total <= 0:
            # Only without an offset (plain vectors): all rows coincide with picks, any remaining one is as good.
            rest = np.array([i for i in open_rows if i not in chosen])
            picks.append(int(rest[int(next(uniforms) * len(rest))]))
        else:
            cdf = np.cumsum((weights / total).astype(cdf_dtype), dtype=cdf_dtype)
            while True:
                found = int(np.searchsorted(cdf, next(uniforms), side="left"))
                found = found if found < len(cdf) else 0
                if found not in chosen and allowed[found]:
                    break
            picks.append(found)
        chosen.add(picks[-1])
    return Seeding(np.array(picks, dtype=np.int64), weights, norms)
