"""A stream whose items are judged one by one as they arrive (``stream_mode = item``); all of it is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import StreamStateInvalid
from backend.learners.projection import ProjectionHead
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.choosing import (
    Choice,
    PairingArrays,
    as_question,
    candidates_shown,
    conflict_questions,
    of_distinct_contents,
)
from backend.rounds.pairing.settling import Settled
from backend.store.tables import PairQueryRow
from backend.strategies import Pairs
from backend.strategies.pairing import MODALITIES, ItemStream, arrival_figures, item_queries, other

# States of an item of such a stream: it waits to be judged, and then is a candidate until newer ones take its place.
WAITING, JUDGED = "buffer", "judged"
FACTOR = 4.0


@dataclass(frozen=True)
class Arrival:
    """What a round did with what arrived.

    choice : questions about the items that were let through, after those that settle conflicts
    judged : numbers of the items that were looked at
    dropped : numbers of older ones that are candidates no longer
    stream : the controller's state, for the next round
    """

    choice: Choice
    judged: set[int]
    dropped: set[int]
    stream: dict[str, Any]


def judge_arrivals(
    arrays: PairingArrays,
    head: ProjectionHead,
    settled: Settled,
    asked: Sequence[PairQueryRow],
    options: ProjectOptions,
    directions: Sequence[str],
    seed: int,
    stored: dict[str, Any],
) -> Arrival:
    """Decide on each item that waits, in the order of arrival, by ``ItemStream`` (unaligned.md section 6.4).

    Of the wanted rate the part ``audit_share`` is drawn at random instead and counts as control questions. Items
    that the form cannot ask about become candidates only. Items are left waiting while the other modality has fewer
    than two candidates: their margin is not known.
    """
    joint = {m: head.embed(m, arrays.features[m]) for m in MODALITIES}
    here = {m: arrays.states[m] != "dropped" for m in MODALITIES}
    known = arrays.known(settled)
    pairs = of_distinct_contents(arrays, Pairs(arrays.features, joint, known, here, options.one_to_one, here))
    stream = _stream(options, directions, seed, stored)
    about = {q.item for q in asked if q.answer not in ("deleted", "withdrawn")} | settled.paired
    waiting = {m: np.flatnonzero(arrays.states[m] == WAITING) for m in MODALITIES}
    judged = {int(n) for m in MODALITIES for n in arrays.numbers[m][waiting[m]]}
    arrivals: list[tuple[int, str, int, float, float]] = []
    for m in directions:
        new = ~np.isin(arrays.numbers[m][waiting[m]], np.fromiter(about, np.int64, len(about)))
        rows = waiting[m][new & pairs.present[m][waiting[m]]]
        if int(pairs.candidates(other(m)).sum()) < 2:
            judged -= set(arrays.numbers[m][rows].tolist())
            continue
        cover, margin = arrival_figures(pairs, m, rows)
        arrivals += zip(arrays.numbers[m][rows].tolist(), [m] * len(rows), rows.tolist(), cover, margin, strict=True)
    chosen: dict[str, list[tuple[int, str, float]]] = {m: [] for m in MODALITIES}
    # Numbers are given in the order of arrival.
    for number, m, row, cover_of_it, margin_of_it in sorted(arrivals):
        rng = np.random.default_rng([seed, number])
        why = _wanted(stream, m, cover_of_it, margin_of_it, options, rng)
        if why:
            chosen[m].append((row, why, cover_of_it))
    shown = candidates_shown(asked, options)
    questions = conflict_questions(arrays, joint, settled, directions)
    for m, picked in chosen.items():
        items = np.array([row for row, _, _ in picked], dtype=np.int64)
        covers = np.array([cover for _, _, cover in picked])
        for query in item_queries(pairs, m, items, [why for _, why, _ in picked], covers, shown):
            if query.why == "control":
                query = replace(query, figures={**query.figures, "control": 1.0})
            questions.append(as_question(arrays, pairs, query))
    return Arrival(Choice(questions, set()), judged, _outdated(arrays, judged, settled, options), stream.state())


def _wanted(
    stream: ItemStream,
    modality: str,
    cover: float,
    margin: float,
    options: ProjectOptions,
    rng: np.random.Generator,
) -> str:
    """Why to ask about an item; empty: not at all."""
    control = rng.random() < options.stream_rate * options.audit_share
    warming = stream.warming(modality)
    chosen = stream.offer(modality, cover, margin)
    if control:
        return "control"
    return ("random" if warming else "uncovered") if chosen else ""


def _stream(options: ProjectOptions, directions: Sequence[str], seed: int, stored: dict[str, Any]) -> ItemStream:
    """The controller as it stood, at the rate that is wanted now; a new one where there is none."""
    rate = options.stream_rate * (1.0 - options.audit_share)
    wanted = {"rate": rate, "factor": min(FACTOR, 1.0 / rate), "by_modality": len(directions) > 1}
    fresh = ItemStream(rate, factor=min(FACTOR, 1.0 / rate), by_modality=len(directions) > 1, seed=seed)
    try:
        return ItemStream.from_state({**stored, **wanted}) if stored else fresh
    except StreamStateInvalid:
        # Written by another version: what is recent is learnt again within a few dozen items.
        return fresh


def _outdated(arrays: PairingArrays, judged: set[int], settled: Settled, options: ProjectOptions) -> set[int]:
    """Unpaired items of the stream beyond the ``stream_buffer`` latest; none where no number is set."""
    if not options.stream_buffer:
        return set()
    older: NDArray[np.int64] = np.concatenate([arrays.numbers[m][arrays.states[m] == JUDGED] for m in MODALITIES])
    candidates = sorted(set(older.tolist()) | judged, reverse=True)
    return set(candidates[options.stream_buffer :]) - settled.paired
