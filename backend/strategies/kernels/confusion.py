"""How much a row would confuse known pairs: the hinge of a triplet loss with it as the negative."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.views import View

CHUNK_ROWS = 8192
PAIR_BLOCK = 4096


def hinge_scores(
    view: View, rows: np.ndarray, anchors: np.ndarray, matched: np.ndarray, slack: float, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """(h, raw), float64 aligned with ``rows``: h(x) = mean of the ``top`` largest of [<x, l_i> - s_i + slack]_+.

    anchors: (p, d) the pairs' members l_i on the other side, p >= 1; matched: (p,) similarity s_i inside each pair;
    raw: the same without the cut at 0, which tells rows apart that confuse nothing. Rounded to 1e-6, so that equal
    rows score equally. O(n p d), memory of chunks; no pass over the other pool.

    Source: our reading of Jo, Lee, Chung and Choi, arXiv 2405.16301, 2024 (unaligned.md section 7.1).
    """
    top = min(top, len(anchors))
    cut, raw = np.empty(len(rows)), np.empty(len(rows))
    offsets = (slack - matched).astype(np.float32)
    for begin in range(0, len(rows), CHUNK_ROWS):
        block = view.rows(rows[begin : begin + CHUNK_ROWS])
        best: np.ndarray = np.full((len(block), top), -np.inf, dtype=np.float32)
        for first in range(0, len(anchors), PAIR_BLOCK):
            value: np.ndarray = block @ anchors[first : first + PAIR_BLOCK].T
            value += offsets[first : first + PAIR_BLOCK]
            if top == 1:
                best = np.maximum(best, value.max(axis=1, keepdims=True))
                continue
            both = np.concatenate([best, value], axis=1)
            best = np.partition(both, both.shape[1] - top, axis=1)[:, -top:]
        raw[begin : begin + len(block)] = best.mean(axis=1, dtype=np.float64)
        cut[begin : begin + len(block)] = np.maximum(best, 0.0).mean(axis=1, dtype=np.float64)
    return np.round(cut, 6), np.round(raw, 6)
