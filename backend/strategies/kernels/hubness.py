"""How similar a row is to everything: what a similarity is corrected by."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from backend.strategies.kernels.views import View

CHUNK_ROWS = 8192
# Neighbours that CSLS averages over, as in its paper.
NEIGHBOURS = 10


def hub_penalty(view: View, sample: np.ndarray, kind: str, temperature: float) -> np.ndarray:
    """(n,) float64 to be subtracted from <x, y> for the candidate y, a row of ``view``.

    "csls": half the mean of its 10 largest similarities to the sample; CSLS is 2 <x, y> - r(x) - r(y), and halved
    and without r(x), which is the same for all candidates of a query, it is <x, y> - r(y) / 2.
    "lse": (t / 2) log mean over the sample of exp(<x, y> / t), the part of negCLIPLoss that depends on y, with a mean
    for the sum so that the size of the sample does not matter.
    sample: (s, D) rows of the other side, s >= 1. One pass, O(n s D). Values are rounded to 1e-6, so that equal rows
    have equal penalties. That a sample stands for the whole side is ours.

    Source: Conneau et al., Word Translation without Parallel Data, ICLR 2018 (CSLS); Wang et al., arXiv 2405.19547,
    NeurIPS 2024 (negCLIPLoss), as in unaligned.md section 7.6.
    """
    out = np.empty(len(view))
    for begin in range(0, len(view), CHUNK_ROWS):
        part = slice(begin, min(begin + CHUNK_ROWS, len(view)))
        product = view.rows(part) @ sample.T
        if kind == "csls":
            k = min(NEIGHBOURS, product.shape[1])
            top = np.partition(product, product.shape[1] - k, axis=1)[:, -k:]
            out[part] = top.mean(axis=1, dtype=np.float64) / 2.0
        else:
            scaled = product.astype(np.float64) / temperature
            out[part] = temperature / 2.0 * (logsumexp(scaled, axis=1) - np.log(product.shape[1]))
    return np.round(out, 6)
