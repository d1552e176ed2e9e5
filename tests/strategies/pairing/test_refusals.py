"""What is left to ask about and to offer after "none of these", and among equal contents."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import PairsInvalid
from backend.strategies import create_strategy, strategy_names
from backend.strategies.pairing import one_of_each, rest_end, still_offered
from backend.strategies.pairing.matching import Matching
from backend.strategies.pairing.pairs import MODALITIES, Pairs

CONTENTS = np.array([7, 5, 7, 3, 5])
ALL = np.ones(5, dtype=bool)


def test_of_equal_contents_the_first_that_is_on_offer_stands_for_all() -> None:
    assert one_of_each(CONTENTS, ALL).tolist() == [True, True, False, True, False]
    offered = np.array([False, True, True, True, True])
    assert one_of_each(CONTENTS, offered).tolist() == [False, True, True, True, False]
    assert not one_of_each(CONTENTS, ~ALL).any()


def test_a_refused_content_is_refused_by_whichever_name() -> None:
    offered = one_of_each(CONTENTS, ALL)
    refused = {10: np.array([0, 1, 3]), 11: np.array([4, 2]), 12: np.array([3, 3]), 13: np.array([], dtype=int)}
    found = {item: rows.tolist() for item, rows in still_offered(CONTENTS, offered, refused).items()}
    assert found == {10: [0, 1, 3], 11: [0, 1], 12: [3], 13: []}
    nothing = still_offered(CONTENTS, np.array([False, True, False, False, False]), refused)
    assert {item: rows.tolist() for item, rows in nothing.items()} == {10: [1], 11: [1], 12: [], 13: []}


def two_pools(refused: dict[str, dict[int, np.ndarray]], n: int = 9) -> Pairs:
    rng = np.random.default_rng(3)
    joint = {m: rng.normal(size=(n, 4)).astype(np.float32) for m in MODALITIES}
    known = np.array([[0, 0]])
    return Pairs(joint, joint, known, {m: np.ones(n, dtype=bool) for m in MODALITIES}, refused=refused)


@pytest.mark.parametrize("name", strategy_names(pairs=True))
def test_no_strategy_offers_what_was_refused_or_asks_about_who_was_refused_everything(name: str) -> None:
    everything = np.arange(1, 9)
    for modality in MODALITIES:
        pairs = two_pools({modality: {2: everything, 3: np.array([1, 4, 5]), 4: everything[:-1]}})
        strategy = create_strategy(name, directions=modality, audit_share=0.3)
        queries = strategy.select(pairs, 9, np.random.default_rng(0), candidates=4).queries
        assert {query.item for query in queries} == {1, *range(3, 9)}
        shown = {query.item: query.candidates.tolist() for query in queries}
        assert not {1, 4, 5} & set(shown[3]) and len(shown[3]) == 4
        assert shown[4] == [8]
        assert all(len(shown[item]) == 4 for item in range(5, 9))


@pytest.mark.parametrize("margin", ["plain", "group"])
def test_the_margin_is_between_candidates_that_were_not_refused(margin: str) -> None:
    pairs = two_pools({})
    for item in range(1, 9):
        best = Matching.of(pairs, "image").best(np.array([item]), 8)
        fewer = two_pools({"image": {item: best.rows[0, :1], 0: np.array([1])}})
        found = Matching.of(fewer, "image").best(np.array([item]), 8, margin=margin)
        assert found.guess[0] == best.rows[0, 1]
        if margin == "plain":
            assert found.margin[0] == pytest.approx(best.scores[0, 1] - best.scores[0, 2])
        alone = two_pools({"image": {item: best.rows[0, 1:]}})
        left = Matching.of(alone, "image").best(np.array([item]), 8, margin=margin)
        assert left.margin[0] == np.inf and left.guess[0] == best.rows[0, 0]


def test_refusals_of_an_unknown_modality_are_an_error() -> None:
    with pytest.raises(PairsInvalid, match="sound"):
        two_pools({"sound": {}})


def test_a_rest_doubles_with_each_time_and_ends_at_the_longest() -> None:
    assert [rest_end([1, 4, 10][:n], 3) for n in (1, 2, 3)] == [4, 10, 22]
    assert rest_end([1, 2, 3, 4], 3, longest=12) == 16
