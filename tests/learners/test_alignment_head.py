"""Grades of image-text pairs: learned from few labels, calibrated, and usable by every strategy that has a sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from backend.errors import FeaturesMismatch, HeadStateInvalid, StrategyUnsuited
from backend.learners import LateFusionHead, alignment
from backend.learners.alignment import AGREEMENT, AlignmentHead
from backend.learners.projection import ProjectionHead
from backend.strategies.pool import Pool
from backend.strategies.registry import create_strategy

WIDTH = 12
SPACE = ProjectionHead.identity(WIDTH)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def graded(n: int, seed: int, grades: int = 3) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pairs that share the more of their scene the higher their grade; everything also resembles everything."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, grades, n)
    scene, other = rng.normal(size=(2, n, WIDTH))
    share = (labels / (grades - 1))[:, None]
    common = np.full(WIDTH, 0.8)
    text = share * scene + np.sqrt(1 - share**2) * other
    rows = {"image": scene + common, "text": text + common}
    return {m: unit(x + 0.3 * rng.normal(size=x.shape)) for m, x in rows.items()}, labels


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("grades", [2, 3, 4])
def test_sixty_labels_grade_unseen_pairs_where_a_plain_head_guesses(grades):
    test, truth = graded(400, seed=100, grades=grades)
    for seed in range(3):
        pool, labels = graded(300, seed=seed, grades=grades)
        labelled = np.arange(300) < 60
        head = AlignmentHead.fit(pool, labels, n_classes=grades, start=SPACE, labelled=labelled, seed=seed)
        plain = LateFusionHead.fit(pool, labels, n_classes=grades, labelled=labelled, seed=seed)
        # Four standard errors of 400 scored pairs are 0.1.
        assert accuracy(head.probabilities(test), truth) > accuracy(plain.probabilities(test), truth) + 0.1


def test_probabilities_mean_what_they_say():
    pool, labels = graded(600, seed=3)
    test, truth = graded(2000, seed=4)
    head = AlignmentHead.fit(pool, labels, n_classes=3, start=SPACE)
    found = head.probabilities(test)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for grade in range(3):
        for part in np.array_split(np.argsort(found[:, grade]), 4):
            assert (truth[part] == grade).mean() == pytest.approx(found[part, grade].mean(), abs=0.08)


def test_the_names_of_the_grades_may_be_in_any_order():
    pool, labels = graded(200, seed=5)
    turned = np.array([1, 2, 0])
    one = AlignmentHead.fit(pool, labels, n_classes=3, start=SPACE)
    two = AlignmentHead.fit(pool, turned[labels], n_classes=3, start=SPACE)
    # Without the temperature, whose folds are dealt in the order of the grades.
    first, second = (head.head.probabilities(head.embed(pool), calibrated=False) for head in (one, two))
    np.testing.assert_allclose(second[:, turned], first, atol=1e-4)


@given(st.lists(st.integers(0, 59), max_size=20), st.lists(st.integers(0, 59), max_size=20))
@settings(max_examples=15, deadline=None)
def test_a_pair_with_an_absent_side_is_a_zero_row_and_changes_no_other(no_image, no_text):
    pool, labels = graded(60, seed=6)
    head = AlignmentHead.fit(pool, labels, n_classes=3, start=SPACE)
    whole = head.embed(pool)[AGREEMENT]
    pool["image"][no_image] = 0
    pool["text"][no_text] = 0
    found = head.embed(pool)[AGREEMENT]
    absent = np.isin(np.arange(60), no_image + no_text)
    assert not found[absent].any()
    np.testing.assert_array_equal(found[~absent], whole[~absent])
    np.testing.assert_allclose(np.linalg.norm(found[~absent], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(head.probabilities(pool)[absent], 1 / 3, atol=1e-6)


def test_half_precision_maps_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pool, labels = graded(50, seed=7)
    mapped = {}
    for m, rows in pool.items():
        mapped[m] = np.memmap(tmp_path / m, dtype=np.float16, mode="w+", shape=rows.shape)
        mapped[m][:] = rows
    whole = AlignmentHead.fit(mapped, labels, n_classes=3, start=SPACE).embed(mapped)[AGREEMENT]
    monkeypatch.setattr(alignment, "CHUNK_ROWS", 7)
    cut = AlignmentHead.fit(mapped, labels, n_classes=3, start=SPACE).embed(mapped)[AGREEMENT]
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_before_any_label_every_grade_has_even_odds():
    pool, _ = graded(30, seed=8)
    head = AlignmentHead.fit(pool, np.full(30, -1), n_classes=3, start=SPACE)
    np.testing.assert_allclose(head.probabilities(pool), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("name", ["random", "entropy", "margin", "least_confidence", "badge", "coreset", "kmeans"])
def test_ordinary_strategies_work_on_its_pool(name):
    pool, labels = graded(120, seed=9)
    labelled = np.arange(120) < 30
    head = AlignmentHead.fit(pool, labels, n_classes=3, start=SPACE, labelled=labelled)
    arrays = Pool.from_head(head.embed(pool), labels, labelled, head.head, n_classes=3)
    picks = create_strategy(name).select(arrays, 10, np.random.default_rng(0)).indices
    assert len(set(picks.tolist())) == 10
    assert not labelled[picks].any()


def test_a_strategy_that_compares_modalities_is_refused_because_there_is_one():
    with pytest.raises(StrategyUnsuited, match="compares modalities"):
        create_strategy("bmmal").check(multi_label=False, n_classes=3, modalities=(AGREEMENT,))


def test_it_comes_back_from_disk_as_it_was(tmp_path: Path):
    pool, labels = graded(60, seed=10)
    head = AlignmentHead.fit(pool, labels, n_classes=3, start=SPACE)
    arrays, metadata = head.state()
    save_file(arrays, tmp_path / "head.safetensors", metadata=metadata)
    with safe_open(tmp_path / "head.safetensors", framework="np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        back = AlignmentHead.from_state(read, file.metadata())
    np.testing.assert_array_equal(back.probabilities(pool), head.probabilities(pool))
    del read["spread.text"]
    with pytest.raises(HeadStateInvalid, match="incomplete"):
        AlignmentHead.from_state(read, metadata)
    with pytest.raises(HeadStateInvalid, match="expected"):
        AlignmentHead.from_state(arrays, {**metadata, "kind": "projection"})


def test_rows_that_are_no_pairs_are_refused():
    pool, labels = graded(20, seed=11)
    with pytest.raises(FeaturesMismatch, match="one image with one text"):
        AlignmentHead.fit({"image": pool["image"]}, labels, n_classes=3, start=SPACE)
    with pytest.raises(FeaturesMismatch, match="encoder it was trained on"):
        AlignmentHead.fit(pool, labels, n_classes=3, start=ProjectionHead.identity(4))


def test_true_pairs_train_the_space_and_the_probabilities_stay_honest():
    """The two views need maps of their own here, which a poor start does not have and the true pairs teach."""
    views = np.random.default_rng(99).normal(size=(2, WIDTH, 20))
    pool, labels = graded(400, seed=12)
    test, truth = graded(600, seed=13)
    seen, unseen = (
        {m: unit(rows[m] @ view) for m, view in zip(("image", "text"), views, strict=True)} for rows in (pool, test)
    )
    few = np.flatnonzero(labels == 2)[:8]
    start = ProjectionHead.canonical([(seen["image"][few], seen["text"][few])], width=WIDTH)
    labelled = np.arange(400) >= 100
    as_given = AlignmentHead.fit(seen, labels, n_classes=3, start=start, labelled=labelled)
    trained = AlignmentHead.fit(seen, labels, n_classes=3, start=start, labelled=labelled, matching=(2,))
    before, after = (head.probabilities(unseen) for head in (as_given, trained))
    assert accuracy(after, truth) > accuracy(before, truth) + 0.05
    # Codes of its own training pairs would make it sure of itself: expected and actual accuracy part by 0.2 then.
    assert after.max(axis=1).mean() == pytest.approx(accuracy(after, truth), abs=0.07)
