"""A random audit share that any pair strategy can wear."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from backend.strategies.audit import check_share, control_count
from backend.strategies.pairing.base import Open, PairStrategy, Picks, queries_of
from backend.strategies.pairing.pairs import MODALITIES, Pairs, PairSelection, Query


@dataclass(frozen=True)
class AuditedPairs(PairStrategy):
    """The strategy ``inner`` with a part ``share`` of each batch replaced by control queries.

    Controls are a uniform draw from all items that may be asked about, of both modalities where both may be, made
    before the strategy chooses: only their ranks are exchangeable, so only they say how many candidates to show
    (``conformal_candidates``). The strategy fills the rest with its first queries that are not drawn already.
    Controls stand at random positions. Figure ``control``: 1 for them, 0 for the others.

    Source: unaligned.md section 6.5, 2026; how positions and rounding are drawn is ours, as in ``strategies.audit``.
    """

    name: ClassVar[str] = "audit"
    title: ClassVar[str] = "Random audit share"
    paper: ClassVar[str] = "simple random sampling inside the batch"
    complexity: ClassVar[str] = "O(n) beside the strategy's, and a pass for the candidates of the controls"

    inner: PairStrategy = field(kw_only=True)
    share: float = field(kw_only=True)

    def __post_init__(self) -> None:
        check_share(self.share)

    def check(self, **project: Any) -> None:
        """As the strategy's own."""
        self.inner.check(**project)

    def askable(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """As the strategy's own."""
        return self.inner.askable(pairs)

    def select(
        self, pairs: Pairs, batch_size: int, rng: np.random.Generator, *, candidates: int = 8
    ) -> PairSelection:
        """As ``PairStrategy.select``; ``modality`` is the strategy's, controls may be of the other one."""
        open_ = {name: np.flatnonzero(mask) for name, mask in self.askable(pairs).items()}
        total = sum(map(len, open_.values()))
        size = min(max(batch_size, 0), total)
        drawn = np.sort(rng.choice(max(total, 1), control_count(self.share, size, rng), replace=False))
        controls, first = [], 0
        for name, rows in open_.items():
            controls += [(name, int(rows[number - first])) for number in drawn if 0 <= number - first < len(rows)]
            first += len(rows)
        # Drawn now, so that they are the same whatever the strategy draws.
        shuffled = np.random.default_rng(int(rng.integers(2**62)))
        chosen = self.inner.select(pairs, batch_size, rng, candidates=candidates)
        fresh = [query for query in chosen.queries if (query.modality, query.item) not in controls]
        batch = [_marked(query, 0.0) for query in fresh[: size - len(controls)]]
        for query in _control_queries(pairs, controls, candidates):
            batch.insert(int(shuffled.integers(0, len(batch) + 1)), query)
        return PairSelection(tuple(batch), chosen.modality, chosen.parts)

    def _pick(self, pairs: Pairs, open_: Open, count: int, rng: np.random.Generator, candidates: int) -> Picks:
        return self.inner._pick(pairs, open_, count, rng, candidates)


def _marked(query: Query, control: float) -> Query:
    return replace(query, figures={**query.figures, "control": control})


def _control_queries(pairs: Pairs, controls: list[tuple[str, int]], candidates: int) -> list[Query]:
    queries: list[Query] = []
    for modality in MODALITIES:
        items = np.array([item for name, item in controls if name == modality], dtype=np.int64)
        if len(items):
            picks = Picks(modality, items, ["control"] * len(items))
            queries += [_marked(query, 1.0) for query in queries_of(pairs, picks, candidates)]
    return queries
