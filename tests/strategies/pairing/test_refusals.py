"""What is left to ask about and to offer after "none of these", and among equal contents."""

from __future__ import annotations

import numpy as np

from backend.strategies.pairing import exhausted, one_of_each, rest_end, unrefused

CONTENTS = np.array([7, 5, 7, 3, 5])
ALL = np.ones(5, dtype=bool)


def test_of_equal_contents_the_first_that_is_on_offer_stands_for_all() -> None:
    assert one_of_each(CONTENTS, ALL).tolist() == [True, True, False, True, False]
    offered = np.array([False, True, True, True, True])
    assert one_of_each(CONTENTS, offered).tolist() == [False, True, True, True, False]
    assert not one_of_each(CONTENTS, ~ALL).any()


def test_a_refused_content_is_refused_by_whichever_name() -> None:
    assert unrefused(CONTENTS, ALL, np.array([4])).tolist() == [True, False, True, True, False]


def test_an_item_is_exhausted_once_every_content_on_offer_was_refused() -> None:
    offered = one_of_each(CONTENTS, ALL)
    refused = {10: np.array([0, 1, 3]), 11: np.array([2, 4, 3]), 12: np.array([0, 2, 3]), 13: np.array([1])}
    assert exhausted(CONTENTS, offered, refused) == [10, 11]


def test_a_rest_doubles_with_each_time_and_ends_at_the_longest() -> None:
    assert [rest_end([1, 4, 10][:n], 3) for n in (1, 2, 3)] == [4, 10, 22]
    assert rest_end([1, 2, 3, 4], 3, longest=12) == 16
