"""Replays a set of pairs as a pairing project, without Label Studio: questions, answers, a projection, its recall."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from backend.learners.pair_scores import DEPTHS, group_scores_of, retrieval
from backend.learners.projection import ProjectionHead
from backend.simulation.pairing.annotator import Answers, answered
from backend.simulation.pairing.pair_sets import PairingSet
from backend.simulation.pairing.pools import OUTSIDE, Pools, drawn_pools, pools_of
from backend.simulation.shared_opening import Measures, SharedOpening
from backend.strategies import create_strategy
from backend.strategies.pairing import (
    MODALITIES,
    Pairs,
    PairStrategy,
    Query,
    conformal_candidates,
    one_of_each,
    other,
    still_offered,
)

SHOWN = 8
# Share of misses that the number of candidates is to allow.
MISSES = 0.1


@dataclass(frozen=True)
class Standing:
    """Where a project stands after a round.

    pools: rows of the set; answers: in rows of the pools; joint: modality -> (n, d) rows of the pool as the model
    sees them; audited: ranks of the truth in the control questions so far; asked: modality of each round; rounds:
    what was measured after each.
    """

    pools: Pools
    answers: Answers
    joint: Mapping[str, np.ndarray]
    audited: tuple[float, ...] = ()
    asked: tuple[str, ...] = ()
    rounds: tuple[Measures, ...] = ()


def replay(data: PairingSet, scenario: str, strategy: PairStrategy, *, seed: int) -> tuple[Measures, ...]:
    """What was measured after each round: the first is drawn from all items of both pools and the same for every
    strategy, the others are the strategy's, each with a share of control questions if it wears them.

    The annotator knows the truth and answers as the product's form lets them: with a candidate, or "none of these",
    which is not asked with the same candidates again (``annotator.answered``); in scenarios that end in "_outside"
    they find it outside the candidates too, at the same cost. An answer of equal content is right.

    Raises
    ------
    ReplayInvalid
        Batch and budget do not fit the pool.
    """
    return ROUNDS.rounds(data, scenario, strategy, seed)


def _opening(data: PairingSet, scenario: str, seed: int) -> Standing:
    pools = drawn_pools(data, scenario, seed)
    data.check_plan(pools.smaller, least_batch=2)
    nothing = Answers.none_yet(pools)
    head = _fitted(data, scenario, pools, nothing.known, seed)
    start = Standing(pools, nothing, embedded(head, data, pools.rows))
    # All of the round are control questions: a uniform draw from both pools.
    return after_round(data, scenario, start, create_strategy("pair_random", audit_share=1.0), seed)


def after_round(data: PairingSet, scenario: str, before: Standing, strategy: PairStrategy, seed: int) -> Standing:
    """One round: choose, ask, learn, measure."""
    spent = int(before.rounds[-1]["n_labels"]) if before.rounds else 0
    size = min(data.batch_size, data.budget - spent)
    rows = before.pools.rows
    features = {m: data.features[m][rows[m]] for m in MODALITIES}
    contents = {m: data.contents[m][rows[m]] for m in MODALITIES}
    said, number, outside = before.answers, len(before.rounds) + 1, scenario.endswith(OUTSIDE)
    pairs = Pairs(features, before.joint, said.known, said.askable(number), rounds_asked=before.asked)
    if not outside:
        pairs = as_offered(pairs, contents, said)
    began = time.perf_counter()
    selection = strategy.select(pairs, size, np.random.default_rng([seed, spent]), candidates=SHOWN)
    chosen = time.perf_counter()
    truth = {m: _true_in_pool(data, rows, m) for m in MODALITIES}
    ranks = np.array([true_rank(pairs, query, truth[query.modality][query.item]) for query in selection.queries])
    control = np.array([query.figures.get("control", 0.0) == 1.0 for query in selection.queries], dtype=bool)
    shown = np.array([np.isin(q.candidates, truth[q.modality][q.item]).any() for q in selection.queries], dtype=bool)
    measured = _told(before, pairs, truth, ranks, control)
    measured |= {"audit_shown": _share(shown[control]), "acquired_shown": _share(shown[~control])}
    answers = answered(said, selection.queries, truth, before.pools, contents, round_number=number, outside=outside)
    fitting = time.perf_counter()
    head = _fitted(data, scenario, before.pools, answers.known, seed)
    measured["seconds_fit"] = time.perf_counter() - fitting
    measured["seconds_select"] = chosen - began
    measured |= scores(head, data, before.pools.tested)
    # Questions that a pool too small could not fill count as asked, so that all arms spend the same.
    measured |= {"n_labels": float(spent + size), "pairs": float(len(answers.known))}
    measured["images_asked"] = _share(np.array([query.modality == "image" for query in selection.queries]))
    own = [query.modality for query, drawn in zip(selection.queries, control, strict=True) if not drawn]
    asked = (*before.asked, selection.modality or own[0]) if own or selection.modality else before.asked
    return Standing(
        before.pools,
        answers,
        embedded(head, data, rows),
        (*before.audited, *ranks[control].tolist()),
        asked,
        (*before.rounds, measured),
    )


def as_offered(pairs: Pairs, contents: Mapping[str, np.ndarray], said: Answers) -> Pairs:
    """The pairs with what the product shows: each content once, and to no item what was "none of these" for it."""
    offered = {m: one_of_each(contents[m], pairs.candidates(m)) for m in MODALITIES}
    refused = {m: still_offered(contents[other(m)], offered[other(m)], said.refused[m]) for m in MODALITIES}
    return replace(pairs, offered=offered, refused=refused)


def _fitted(data: PairingSet, scenario: str, pools: Pools, known: np.ndarray, seed: int) -> ProjectionHead:
    start = None if pools_of(scenario) == "no_start" else data.start
    if not len(known) and start is not None:
        return start
    features = {m: data.features[m][pools.rows[m]] for m in MODALITIES}
    same = {m: data.contents[m][pools.rows[m]] for m in MODALITIES}
    return ProjectionHead.fit(features, known, start=start, same=same, seed=seed)


def embedded(head: ProjectionHead, data: PairingSet, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joint rows of some items of each modality."""
    return {m: head.embed(m, data.features[m][rows[m]]) for m in MODALITIES}


def _true_in_pool(data: PairingSet, rows: Mapping[str, np.ndarray], modality: str) -> list[np.ndarray]:
    """For each item of a pool the rows of the other pool that belong to its content; none where it lacks them."""
    theirs = rows[other(modality)]
    return [np.flatnonzero(data.true_partners(modality, row)[theirs]) for row in rows[modality]]


# -- what is measured ---------------------------------------------------------------------------------------------


def true_rank(pairs: Pairs, query: Query, right: np.ndarray) -> float:
    """Place of the best true candidate among all candidates, 1 = first; inf where none is on offer."""
    theirs = other(query.modality)
    return float(_ranks(pairs, query.modality, np.array([query.item]), [right], pairs.candidates(theirs))[0])


def _ranks(
    pairs: Pairs, modality: str, items: np.ndarray, right: list[np.ndarray], offered: np.ndarray
) -> np.ndarray:
    similar = pairs.joint[modality][items] @ pairs.joint[other(modality)].T
    similar[:, ~offered] = -np.inf
    for place, item in enumerate(items.tolist()):
        similar[place, pairs.refused.get(modality, {}).get(item, [])] = -np.inf
    best = np.array([row[true].max(initial=-np.inf) for row, true in zip(similar, right, strict=True)])
    above = (similar > best[:, None]).sum(axis=1) + 1.0
    return np.where(np.isfinite(best), above, np.inf)


def _told(
    before: Standing, pairs: Pairs, truth: Mapping[str, list[np.ndarray]], ranks: np.ndarray, control: np.ndarray
) -> Measures:
    """Ranks of the truth at the time of asking, and whether the number of candidates that the controls so far ask for
    would have held: on the controls of this round, on the other questions, and on everything that could be asked."""
    told = {
        "audit_rank": _median(ranks[control]),
        "acquired_rank": _median(ranks[~control]),
    }
    most = max(pairs.size(m) for m in MODALITIES)
    if before.audited:
        wanted = conformal_candidates(before.audited, MISSES, most)
        if wanted.promised:
            open_ranks = np.concatenate([_open_ranks(pairs, m, truth[m]) for m in MODALITIES])
            told |= {
                "candidates_wanted": float(wanted.k),
                "covered_audit": _share(ranks[control] <= wanted.k),
                "covered_acquired": _share(ranks[~control] <= wanted.k),
                "covered_open": _share(open_ranks <= wanted.k),
            }
    return told


def _open_ranks(pairs: Pairs, modality: str, truth: list[np.ndarray]) -> np.ndarray:
    items = np.flatnonzero(pairs.open(modality))
    return _ranks(pairs, modality, items, [truth[i] for i in items], pairs.candidates(other(modality)))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else float("nan")


def scores(head: ProjectionHead, data: PairingSet, rows: np.ndarray) -> Measures:
    """Recall of the held-out pairs both ways, the mean of both, and the scores of their couples if there are any.

    Items of equal content are right answers too.
    """
    joint = embedded(head, data, dict.fromkeys(MODALITIES, rows))
    true = [np.flatnonzero(data.true_partners("image", row)[rows]) for row in rows]
    pairs = np.array([(i, j) for i, texts in enumerate(true) for j in texts], dtype=np.int64)
    found = retrieval(joint["image"], joint["text"], pairs)
    told = {f"recall_{depth}": found.mean(depth) for depth in DEPTHS}
    told |= {"image_to_text_1": found.image_to_text[1], "text_to_image_1": found.text_to_image[1]}
    here = np.full(len(data), -1, dtype=np.int64)
    here[rows] = np.arange(len(rows))
    couples = here[data.couples]
    couples = couples[(couples >= 0).all(axis=1)]
    if len(couples):
        means = group_scores_of(joint["image"], joint["text"], np.stack([couples, couples], axis=2)).means()
        told |= {"group": means["group"], "group_text": means["text"], "group_image": means["image"]}
    return told


ROUNDS: SharedOpening[PairingSet, Standing, PairStrategy] = SharedOpening(_opening, after_round)
