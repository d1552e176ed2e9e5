"""Query bank: the pairs that would not find each other, hubs taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option, top_scored
from backend.strategies.kernels.linear_scores import row_chunks
from backend.strategies.kernels.pair_similarity import at_median, pair_cosines, present_rows
from backend.strategies.pool import Pool

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class QueryBank(LabelledStrategy):
    """The k pairs of least inverted-softmax similarity, in the mean of both directions.

    For a pair with cosine s, its image normalised by a bank of labelled texts t_b: s - ln(mean_b exp(beta t_b . v)) /
    beta, and the text by labelled images likewise. An item that every query finds (a hub) is corrected downwards. The
    published method normalises a row only where its best item is such a hub, which leaves a ranking within a row as
    it should be; here values are compared across rows, so all are normalised (ours). The authors of ASCMR divide
    by plain sums and forget the exponential. A pair that lacks a side stands at the median (ours).

    Source: Bogolin et al., Cross Modal Retrieval with Querybank Normalisation, CVPR 2022, arXiv 2112.12777; as a
    baseline: ascmr.md section 3.
    """

    name: ClassVar[str] = "query_bank"
    title: ClassVar[str] = "Query bank"
    paper: ClassVar[str] = "Bogolin et al., CVPR 2022, arXiv 2112.12777"
    needs: ClassVar[frozenset[str]] = frozenset({"shared_space"})
    complexity: ClassVar[str] = "O(n L D) time, O(n) memory, L = bank_rows"

    beta: float = option(20.0, "inverse temperature of the normalisation", low=1e-3, high=1e4)
    bank_rows: int = option(2000, "labelled pairs in the bank at most, a uniform sample", low=1, high=100_000)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        cosines, known = pair_cosines(pool.features["image"], pool.features["text"])
        hubness = 0.5 * (self._hubness(pool, "image", "text", rng) + self._hubness(pool, "text", "image", rng))
        picks, scores, parts = top_scored(-at_median(cosines - hubness, known), pool, count, rng)
        return picks, scores, {**parts, "hubness": hubness[picks]}

    def _hubness(self, pool: Pool, of: str, bank: str, rng: np.random.Generator) -> np.ndarray:
        """(n,) soft mean similarity of each item to the labelled items of the other side; 0 without any."""
        queries = np.flatnonzero(pool.labelled & present_rows(pool.features[bank]))
        if len(queries) > self.bank_rows:
            queries = np.sort(rng.choice(queries, self.bank_rows, replace=False))
        out = np.zeros(len(pool))
        if not len(queries):
            return out
        rows = np.asarray(pool.features[bank][queries], dtype=np.float32).T
        for part in row_chunks(len(pool), CHUNK_ROWS):
            similar = np.asarray(pool.features[of][part], dtype=np.float32) @ rows
            similar *= self.beta
            most = similar.max(axis=1)
            np.exp(np.subtract(similar, most[:, None], out=similar), out=similar)
            out[part] = (most + np.log(similar.mean(axis=1))) / self.beta
        return out
