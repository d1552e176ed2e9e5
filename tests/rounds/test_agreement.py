"""Agreement says how far annotators, and classes, can be relied on."""

from __future__ import annotations

import pandas as pd
import pytest
from crowdkit.metrics.data import alpha_krippendorff

from backend.labelstudio.annotations import Answer
from backend.rounds.agreement import krippendorff_alpha, measure_agreement
from tests.rounds.test_label_models import answer, answers


def test_alpha_is_that_of_crowd_kit() -> None:
    for seed, accuracies in enumerate(([0.9, 0.8], [0.9, 0.5, 0.4], [0.35, 0.3, 0.3, 0.3])):
        given, _ = answers(50, accuracies, seed)
        rows = [(a.task_id, a.annotator_id, a.choices[0]) for found in given.values() for a in found if a.choices]
        expected = alpha_krippendorff(pd.DataFrame(rows, columns=["task", "worker", "label"]))
        found = measure_agreement(given, multi_label=False)
        assert found is not None and found.alpha == pytest.approx(expected)


def test_alpha_is_one_for_always_the_same_and_undefined_where_only_one_answer_occurs() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b", "b"]]) == 1
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None


def test_annotators_are_held_against_the_majority_of_the_others_and_the_least_agreed_on_comes_first() -> None:
    given = {task: [answer(task, 1, "cat"), answer(task, 2, "cat"), answer(task, 3, "dog")] for task in range(4)}
    given[4] = [answer(4, 1, "dog"), answer(4, 2, "dog"), answer(4, 3, "dog")]
    found = measure_agreement(given, multi_label=False)
    assert found is not None and found.tasks == 5
    # To tasks 0 to 3 the others of annotators 1 and 2 are tied, so these count for annotator 3 alone.
    assert [(a.annotator, a.answers, a.share) for a in found.annotators] == [(3, 5, 0.2), (1, 1, 1.0), (2, 1, 1.0)]
    # dog: given 7 times; 4 times with nobody else, 3 times with both others. cat: 8 times, with one of two others.
    assert [(c.choice, c.answers, c.share) for c in found.classes] == [
        ("dog", 7, pytest.approx(3 / 7)),
        ("cat", 8, 0.5),
    ]


def test_one_answer_a_task_skips_and_unknown_annotators_give_no_agreement() -> None:
    lone = {1: [answer(1, 1, "cat")], 2: [answer(2, None, "cat", number=1), answer(2, None, "dog", number=2)]}
    assert measure_agreement(lone, multi_label=False) is None
    assert measure_agreement({}, multi_label=True) is None


def test_only_the_latest_answer_of_an_annotator_counts() -> None:
    earlier = answer(1, 1, "dog", number=1)
    given: dict[int, list[Answer]] = {1: [earlier, answer(1, 1, "cat", number=2), answer(1, 2, "cat", number=3)]}
    found = measure_agreement(given, multi_label=False)
    assert found is not None and [c.choice for c in found.classes] == ["cat"]
    assert [a.share for a in found.annotators] == [1.0, 1.0]


def test_sets_of_choices_are_compared_whole_and_choice_by_choice() -> None:
    given = {
        1: [answer(1, 1, "cat", "dog"), answer(1, 2, "cat")],
        2: [answer(2, 1, "bird"), answer(2, 2, "bird")],
    }
    found = measure_agreement(given, multi_label=True)
    assert found is not None
    assert {c.choice: c.share for c in found.classes} == {"dog": 0.0, "bird": 1.0, "cat": 1.0}
    assert [a.share for a in found.annotators] == [0.5, 0.5]
