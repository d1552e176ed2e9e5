"""The best matches of some rows among very many, ties to the lowest row, read in chunks."""

from __future__ import annotations

import numpy as np

from backend.blas_threads import one_thread_if
from backend.strategies.kernels.kcenter import SAFETY
from backend.strategies.kernels.views import View

CHUNK_ROWS = 8192
QUERY_ROWS = 1024
PAIRS = 4096
# So many hits a query and wanted match are looked at one by one before the chunk is cut to its own best.
CROWD = 4
# Below so many multiplications one thread is as good as several, and better where other work is running.
SEVERAL_THREADS_FROM = 10**10


def best_matches(queries: np.ndarray, view: View, k: int, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k rows y of ``view`` with the largest <x, y> - penalty[y] for each query x: (rows (q, k), scores (q, k)).

    Best first, the lowest row on exact ties; scores in float64. queries: (q, D) float32; penalty: (n,) float64, inf
    for rows that are no candidates. k is cut to the number of candidates. One pass over the view: products in
    float32, and whatever they cannot tell from the best so far again in float64, pair by pair, so that equal rows
    score equally wherever they stand. O(q n D) time, memory of chunks and of the result.

    Source: unaligned.md section 6.6 (running merge of the two best); k of them and the re-check are ours.
    """
    k = min(k, int(np.isfinite(penalty).sum()))
    rows = np.full((len(queries), k), np.iinfo(np.int64).max)
    scores = np.full((len(queries), k), -np.inf)
    if k == 0 or not len(queries):
        return rows, scores
    queries = np.asarray(queries, dtype=np.float32)
    with one_thread_if(queries.size * len(view) < SEVERAL_THREADS_FROM):
        for begin in range(0, len(view), CHUNK_ROWS):
            part = slice(begin, min(begin + CHUNK_ROWS, len(view)))
            open_ = np.flatnonzero(np.isfinite(penalty[part]))
            if len(open_):
                block = np.asarray(view.rows(part), dtype=np.float32)
                block = block if len(open_) == len(block) else block[open_]
                chunk = _Chunk(block, open_ + begin, penalty[open_ + begin])
                for first in range(0, len(queries), QUERY_ROWS):
                    some = slice(first, first + QUERY_ROWS)
                    chunk.merge(queries[some], rows[some], scores[some])
    return rows, scores


class _Chunk:
    """Candidates that are looked at together: vectors, row numbers (ascending) and penalties."""

    def __init__(self, block: np.ndarray, rows: np.ndarray, penalty: np.ndarray) -> None:
        self.block, self.rows, self.penalty = block, rows, penalty
        longest = float(np.sqrt(np.einsum("ij,ij->i", block, block).max()))
        eps = np.finfo(np.float32).eps
        # Rounding of an inner product of unit vectors times their length, and of the penalty.
        self.rounding = longest * eps * (SAFETY * np.sqrt(block.shape[1]) / 2.0 + 4.0)
        self.fixed = 4.0 * eps * float(np.abs(penalty).max())

    def thinned(self, k: int) -> _Chunk:
        """The first k of each set of equal candidates: the others come after them, whatever the query."""
        both = np.column_stack([self.block, self.penalty.astype(np.float32)])
        _, group = np.unique(both, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        ordered = group.ravel()[order]
        nth = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
        kept = np.sort(order[nth < k])
        return _Chunk(self.block[kept], self.rows[kept], self.penalty[kept])

    def merge(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray, *, thin: bool = True) -> None:
        """Bring the best rows and scores of some queries up to date, in place."""
        k = rows.shape[1]
        slack = self.rounding * np.sqrt(np.einsum("ij,ij->i", queries, queries)) + self.fixed
        product = queries @ self.block.T
        product -= self.penalty.astype(np.float32)
        level = (scores[:, -1] - slack).astype(np.float32)
        hit = product >= level[:, None]
        if hit.sum() > CROWD * k * len(queries) and product.shape[1] > k:
            # Who is among the best k is, by rounded products, not below the k-th by more than both roundings.
            own = np.partition(product, product.shape[1] - k, axis=1)[:, -k] - 2.0 * slack
            hit = product >= np.maximum(level, own.astype(np.float32))[:, None]
            if thin and hit.sum() > CROWD * k * len(queries):
                self.thinned(k).merge(queries, rows, scores, thin=False)
                return
        self._insert(queries, rows, scores, *np.nonzero(hit))

    def _insert(
        self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray, query: np.ndarray, column: np.ndarray
    ) -> None:
        k = rows.shape[1]
        exact = np.empty(len(query))
        for begin in range(0, len(query), PAIRS):
            i, j = query[begin : begin + PAIRS], column[begin : begin + PAIRS]
            left, right = queries[i].astype(np.float64), self.block[j].astype(np.float64)
            exact[begin : begin + PAIRS] = np.einsum("ij,ij->i", left, right) - self.penalty[j]
        changed = np.unique(query)
        query = np.concatenate([query, np.repeat(changed, k)])
        row = np.concatenate([self.rows[column], rows[changed].ravel()])
        score = np.concatenate([exact, scores[changed].ravel()])
        order = np.lexsort((row, -score, query))
        starts = np.searchsorted(query[order], changed, side="left")
        kept = order[(starts[:, None] + np.arange(k)).ravel()]
        rows[changed], scores[changed] = row[kept].reshape(-1, k), score[kept].reshape(-1, k)
