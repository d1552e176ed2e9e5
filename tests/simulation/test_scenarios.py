"""What the scenarios do to a set, and that they do it to all arms of a seed alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from backend.errors import ReplayInvalid
from backend.simulation.labelled_set import LabelledSet, own_set
from backend.simulation.scenarios import SCENARIOS, make_case
from backend.simulation.splits import near_duplicates, same_content, strata
from tests.simulation.synthetic import small_set, tagged_set

DATA = small_set(400)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("split", ["random", "grouped"])
def test_a_seed_makes_the_same_case_again_and_the_split_does_not_depend_on_the_scenario(
    scenario: str, split: str
) -> None:
    first, again = (make_case(DATA, scenario, split, 3) for _ in range(2))
    for name in ("labels", "answers", "holdout", "left_out"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for modality in DATA.features:
        np.testing.assert_array_equal(first.features[modality], again.features[modality])
    np.testing.assert_array_equal(first.holdout, make_case(DATA, "plain", split, 3).holdout)
    np.testing.assert_array_equal(first.labels, DATA.labels)
    groups = DATA.groups[split]
    assert not set(groups[first.holdout]) & set(groups[~first.holdout])


def test_plain_changes_nothing() -> None:
    case = make_case(DATA, "plain", "random", 0)
    assert case.features is DATA.features and not case.left_out.any()
    np.testing.assert_array_equal(case.answers, DATA.labels)


def test_a_long_tail_falls_by_the_formula_and_leaves_the_test_side_whole() -> None:
    case = make_case(DATA, "long_tail", "random", 1)
    assert not (case.left_out & case.holdout).any()
    before = np.bincount(DATA.labels[~case.holdout])
    after = np.bincount(DATA.labels[~case.holdout & ~case.left_out])
    order = np.argsort(-before, kind="stable")
    caps = [max(4, round(before.max() * 50 ** (-rank / 3))) for rank in range(4)]
    assert after[order].tolist() == [min(have, cap) for have, cap in zip(before[order], caps, strict=True)]
    assert after[order[-1]] == 4  # the smallest class keeps the minimum


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("how", ["blank", "swapped"])
def test_half_of_one_modality_is_degraded_on_either_side(modality: str, how: str) -> None:
    case = make_case(DATA, f"{modality}_{how}", "random", 2)
    other = "text" if modality == "image" else "image"
    np.testing.assert_array_equal(case.features[other], DATA.features[other])
    changed = (case.features[modality] != DATA.features[modality]).any(axis=1)
    for side in (case.holdout, ~case.holdout):
        assert changed[side].sum() == round(0.5 * side.sum())
        rows, sources = case.features[modality][side & changed], DATA.features[modality][side]
        if how == "blank":
            assert not rows.any()
        else:  # another item's, of the same side
            assert all((row == sources).all(axis=1).any() for row in rows)


def test_a_noisy_annotator_errs_on_a_tenth_of_the_pool_and_the_truth_is_scored() -> None:
    case = make_case(DATA, "noisy", "random", 4)
    wrong = case.answers != DATA.labels
    assert wrong.sum() == round(0.1 * (~case.holdout).sum()) and not wrong[case.holdout].any()
    assert set(np.unique(case.answers)) <= set(range(4))
    # Each other class is as likely.
    assert chisquare(np.bincount((case.answers - DATA.labels)[wrong] % 4, minlength=4)[1:]).pvalue > 1e-3
    np.testing.assert_array_equal(case.labels, DATA.labels)


def test_unknown_scenarios_and_missing_modalities_are_refused() -> None:
    with pytest.raises(ReplayInvalid, match="long_tail"):
        make_case(DATA, "no such", "random", 0)
    text_only = LabelledSet(
        "t", {"text": DATA.features["text"]}, DATA.labels, DATA.classes, DATA.groups, batch_size=10, budget=40
    )
    with pytest.raises(ReplayInvalid, match="lacks one"):
        make_case(text_only, "image_blank", "random", 0)


def test_equal_texts_and_near_duplicates_are_grouped_and_pictures_speak_without_text() -> None:
    texts = ["Car 1", "car  1", "car 2", "", "", ""]
    images = ["a", "b", "c", "x", "x", "y"]
    assert same_content(texts, images).tolist() == [0, 0, 1, 2, 2, 3]
    assert near_duplicates(texts, images).tolist() == [0, 0, 0, 1, 1, 2]
    assert same_content(["a", "b", "A"]).tolist() == [0, 1, 0]


def own(counts: list[int]) -> LabelledSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.eye(len(labels), 6, dtype=np.float32)
    groups = {"random": np.arange(len(labels)), "grouped": np.arange(len(labels))}
    return own_set("mine", {"text": rows}, labels, [f"c{i}" for i in range(len(counts))], groups, ["told"])


def test_own_labels_lose_classes_too_small_to_split_and_say_so() -> None:
    data = own([30, 0, 2, 40])
    assert list(data.classes) == ["c0", "c3"] and len(data) == 70
    assert np.bincount(data.labels).tolist() == [30, 40]
    assert data.notes[0] == "told" and "c2" in data.notes[1] and "70 labelled items" in data.notes[2]
    assert data.batch_size >= 5 and 2 * data.batch_size <= data.budget <= 70 * 3 // 4


def test_many_own_labels_get_no_warning_and_the_budget_of_the_protocol() -> None:
    data = own([500, 500])
    assert data.notes == ("told",)
    assert (data.batch_size, data.budget) == (20, 300)


@pytest.mark.parametrize("counts", [[30, 3, 3], [15, 15], [100]])
def test_too_few_own_labels_are_refused(counts: list[int]) -> None:
    with pytest.raises(ReplayInvalid, match="at least 40"):
        own(counts)


def test_several_labels_are_stratified_by_the_rarest_that_fills_the_folds() -> None:
    labels = np.zeros((20, 3), dtype=np.int8)
    labels[:12, 0] = 1
    labels[8:14, 1] = 1
    labels[0:2, 2] = 1  # too rare for four folds
    assert strata(labels).tolist() == [0] * 8 + [1] * 6 + [-1] * 6


def test_a_noisy_annotator_of_several_labels_gives_those_of_another_item() -> None:
    data = tagged_set()
    case = make_case(data, "noisy", "random", 0)
    changed = np.flatnonzero((case.answers != case.labels).any(axis=1))
    assert 0 < len(changed) <= round(0.1 * (~case.holdout).sum()) and not case.holdout[changed].any()
    assert case.answers.sum() == case.labels.sum()
