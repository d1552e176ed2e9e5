"""k-center greedy, one pass over the rows a pick: what the lazy form must pick."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.kcenter import KCenter
from backend.strategies.kernels.views import View


def plain_k_center(view: View, k: int, anchors: np.ndarray, candidates: np.ndarray) -> KCenter:
    """k times the candidate farthest from its nearest centre, lowest row on ties; float64, one pass a pick.

    anchors: rows that are centres already, at least one; candidates: (n,) bool, without the anchors; k <= their
    number. O((k + anchors) n D). Source: Sener and Savarese, ICLR 2018, algorithm 1; bmmal.md section 3.
    """
    rows = view.rows(slice(0, len(view))).astype(np.float64)
    squared = np.full(len(view), np.inf)
    for anchor in anchors:
        np.minimum(squared, ((rows - rows[anchor]) ** 2).sum(axis=1), out=squared)
    open_ = candidates.copy()
    picks, radii = [], []
    for _ in range(k):
        pick = int(np.argmax(np.where(open_, squared, -1.0)))
        picks.append(pick)
        radii.append(squared[pick])
        open_[pick] = False
        np.minimum(squared, ((rows - rows[pick]) ** 2).sum(axis=1), out=squared)
    return KCenter(np.array(picks, dtype=np.int64), np.sqrt(radii), squared)
