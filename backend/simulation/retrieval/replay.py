"""Replays a set of labelled pairs as a retrieval project, without Label Studio: what is found after each batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.learners.retrieval import RetrievalModel, RetrievalRecipe, create_retrieval_model, two_way_score
from backend.simulation.retrieval.retrieval_sets import RetrievalSet
from backend.simulation.shared_opening import Measures, SharedOpening
from backend.strategies import Pool, create_strategy
from backend.strategies.base import Strategy

# Retrieval models that a replay can be asked for; "plain" is what a project gets.
SCENARIOS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("two_branch", {}),
    "labelled_pairs": ("two_branch", {"pairs": "labelled", "pair_share": 0.5}),
    # Fewer epochs than the authors', whose rate their many rounds on thousands of pairs suit.
    "ascmr_network": ("ascmr_network", {"width": 256, "learning_rate": 1e-3, "epochs": 60}),
}


@dataclass(frozen=True)
class Standing:
    """Where a project stands after a round.

    features: the pool's vectors; truth: (p, C) its labels; known: (p, C) those given, -1 where none; tested: vectors
    that are scored on; wanted: (t, C) their labels; model: of this round; rounds: what was measured after each.
    """

    features: Mapping[str, np.ndarray]
    truth: np.ndarray
    known: np.ndarray
    tested: Mapping[str, np.ndarray]
    wanted: np.ndarray
    model: RetrievalModel | None = None
    rounds: tuple[Measures, ...] = ()


def replay(data: RetrievalSet, scenario: str, strategy: Strategy, *, seed: int) -> tuple[Measures, ...]:
    """What was measured after each round: the first batch is random and the same for every strategy, the others are
    the strategy's, chosen in the space of the round's model, which is trained from scratch on the labels so far.

    The annotator gives all labels of a pair at unit cost. map: mean of mAP@all from images to texts and from texts to
    images over the held-out pairs; map_labels: the same, averaged within each label first, so that rare ones count as
    much. The model sees no vector of a held-out pair.

    Raises
    ------
    ReplayInvalid
        Batch and budget do not fit the pool.
    """
    return ROUNDS.rounds(data, scenario, strategy, seed)


def _opening(data: RetrievalSet, scenario: str, seed: int) -> Standing:
    pool, tested = data.split(seed)
    data.check_plan(len(pool), least_batch=1)
    start = Standing(
        {m: data.features[m][pool] for m in data.features},
        data.labels[pool],
        np.full((len(pool), len(data.classes)), -1, dtype=np.int8),
        {m: data.features[m][tested] for m in data.features},
        data.labels[tested],
    )
    return after_round(data, scenario, start, create_strategy("random"), seed)


def after_round(data: RetrievalSet, scenario: str, before: Standing, strategy: Strategy, seed: int) -> Standing:
    """One round: choose, label, learn, measure."""
    labelled = before.known[:, 0] >= 0
    spent = int(labelled.sum())
    size = min(data.batch_size, data.budget - spent)
    began = time.perf_counter()
    picks = strategy.select(_pool(before, labelled), size, np.random.default_rng([seed, spent])).indices
    chosen = time.perf_counter()
    known = before.known.copy()
    known[picks] = before.truth[picks]
    model = recipe(scenario).fit(before.features, known, seed=seed)
    fitted = time.perf_counter()
    measured = {"n_labels": float(spent + len(picks))} | scores(model, before.tested, before.wanted)
    measured |= {"classes_seen": float((known > 0).any(axis=0).mean())}
    measured |= {"seconds_select": chosen - began, "seconds_fit": fitted - chosen}
    return replace(before, known=known, model=model, rounds=(*before.rounds, measured))


def scores(model: RetrievalModel, features: Mapping[str, np.ndarray], labels: np.ndarray) -> Measures:
    """Both directions of mAP@all, their mean, and the mean over labels of the queries that have the label."""
    found = two_way_score(model.embed(features), labels)
    one, other = found.image_to_text, found.text_to_image
    return {
        "map": found.mean,
        "map_labels": float(np.nanmean([one.per_class, other.per_class])),
        "map_image_to_text": one.mean,
        "map_text_to_image": other.mean,
    }


def _pool(standing: Standing, labelled: np.ndarray) -> Pool:
    """What the strategy sees: the pairs in the space of the last model, before there is one as they are."""
    model = standing.model
    return Pool.from_head(
        standing.features if model is None else model.embed(standing.features),
        standing.known,
        labelled,
        None if model is None else model.head,
        n_classes=standing.known.shape[1],
        multi_label=True,
    )


def recipe(scenario: str) -> RetrievalRecipe:
    """The model of a scenario, to be trained."""
    name, options = SCENARIOS[scenario]
    return create_retrieval_model(name, **options)


ROUNDS: SharedOpening[RetrievalSet, Standing, Strategy] = SharedOpening(_opening, after_round)
