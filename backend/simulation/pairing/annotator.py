"""Who answers the questions of a replayed pairing project: always right, by the product's form or beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.simulation.pairing.pools import Pools
from backend.strategies.pairing import COOL_DOWN, LONGEST_REST, MODALITIES, Query, other, rest_end


@dataclass(frozen=True)
class Answers:
    """What was answered so far, in rows of the pools.

    known: (p, 2) pairs; refused: modality -> item -> candidates seen beside "none of these"; nones: modality -> item
    -> rounds of such answers; closed: modality -> (n,) bool, items whose counterpart was looked for outside
    the candidates in vain.
    """

    known: np.ndarray
    refused: Mapping[str, Mapping[int, np.ndarray]]
    nones: Mapping[str, Mapping[int, tuple[int, ...]]]
    closed: Mapping[str, np.ndarray]

    @classmethod
    def none_yet(cls, pools: Pools) -> Answers:
        """Before the first question."""
        return cls(
            np.empty((0, 2), dtype=np.int64),
            {m: {} for m in MODALITIES},
            {m: {} for m in MODALITIES},
            {m: np.zeros(len(rows), dtype=bool) for m, rows in pools.rows.items()},
        )

    def askable(self, round_number: int) -> dict[str, np.ndarray]:
        """Modality -> (n,) bool: items that a round may ask about; who got "none of these" rests for a while."""
        masks = {m: ~self.closed[m] for m in MODALITIES}
        for m, mask in masks.items():
            ends = {item: rest_end(rounds, COOL_DOWN, LONGEST_REST) for item, rounds in self.nones[m].items()}
            mask[[item for item, end in ends.items() if end > round_number]] = False
        return masks


def answered(
    before: Answers,
    queries: Sequence[Query],
    truth: Mapping[str, Sequence[np.ndarray]],
    pools: Pools,
    contents: Mapping[str, np.ndarray],
    *,
    round_number: int,
    outside: bool,
) -> Answers:
    """After the answers to the questions of a round.

    The best candidate that is true makes a pair, or one of equal content where that is taken. Where none is true, the
    answer is "none of these", or with ``outside`` the item's own counterpart from outside the candidates, else
    another of equal content. An item that meanwhile was paired from the other end, or whose true candidates all were,
    gains nothing and is not refused anything. truth: for each item its true rows; contents: modality -> number of
    each row of the pools, equal where the content is.
    """
    known = [(int(image), int(text)) for image, text in before.known]
    taken = {m: {pair[side] for pair in known} for side, m in enumerate(MODALITIES)}
    refused = {m: dict(before.refused[m]) for m in MODALITIES}
    nones = {m: dict(before.nones[m]) for m in MODALITIES}
    closed = {m: before.closed[m].copy() for m in MODALITIES}
    for query in queries:
        mine, theirs = query.modality, other(query.modality)
        if query.item in taken[mine]:
            continue
        right = set(truth[mine][query.item].tolist())
        shown = [int(row) for row in query.candidates if int(row) in right]
        words = contents[theirs]
        further = _beyond(pools, query, right) if outside else [r for r in right if words[r] in words[shown]]
        partner = next((row for row in [*shown, *further] if row not in taken[theirs]), None)
        if partner is not None:
            taken[mine].add(query.item)
            taken[theirs].add(partner)
            known.append((query.item, partner) if mine == "image" else (partner, query.item))
        elif outside:
            closed[mine][query.item] = True
        elif not shown:
            nones[mine][query.item] = (*nones[mine].get(query.item, ()), round_number)
            refused[mine][query.item] = np.union1d(refused[mine].get(query.item, []), query.candidates).astype(int)
    return Answers(np.array(known, dtype=np.int64).reshape(-1, 2), refused, nones, closed)


def _beyond(pools: Pools, query: Query, right: set[int]) -> list[int]:
    """Counterparts in the order they are found: its own may be missing from the other pool."""
    row = pools.rows[query.modality][query.item]
    return [*np.flatnonzero(pools.rows[other(query.modality)] == row).tolist(), *sorted(right)]
