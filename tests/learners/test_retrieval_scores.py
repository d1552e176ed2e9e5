"""mAP@all: equality with the authors' function, and what must hold for any vectors and labels."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FeaturesMismatch, InvalidRetrievalOption, LabelsInvalid
from backend.learners.retrieval import mean_average_precision, two_way_score

GOLDEN = Path(__file__).parent.parent / "golden" / "ascmr_B_map.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as archive:
        return dict(archive)


def plainly(queries, items, query_labels, item_labels, distance):
    """AP of every query by the definition, one rank after the other; None where it has none."""
    found = []
    for q, wanted in zip(queries.astype(float), query_labels, strict=True):
        if distance == "cosine":
            far = [1 - q @ x / np.linalg.norm(q) / np.linalg.norm(x) for x in items.astype(float)]
        else:
            far = [((q - x) ** 2).sum() for x in items.astype(float)]
        hits, total = 0, 0.0
        for k, item in enumerate(sorted(range(len(items)), key=lambda i: (round(far[i], 9), i)), start=1):
            if (wanted & item_labels[item]).any():
                hits += 1
                total += hits / k
        found.append(total / hits if hits else None)
    return found


def pairs(n, n_classes, *, width=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < 0.3).astype(np.int8)
    return rng.normal(size=(n, width)), rng.normal(size=(n, width)), labels


def test_both_directions_and_every_class_equal_the_authors_function(golden):
    score = two_way_score({"image": golden["img"], "text": golden["txt"]}, golden["label"])
    assert score.image_to_text.mean == pytest.approx(float(golden["map_i2t"]), abs=1e-9)
    assert score.text_to_image.mean == pytest.approx(float(golden["map_t2i"]), abs=1e-9)
    np.testing.assert_allclose(score.image_to_text.per_class, golden["per_class_i2t"], atol=1e-9)
    assert score.mean == pytest.approx((score.image_to_text.mean + score.text_to_image.mean) / 2)


def test_euclidean_distance_equals_the_authors_function(golden):
    score = two_way_score({"image": golden["img"], "text": golden["txt"]}, golden["label"], distance="euclidean")
    assert score.image_to_text.mean == pytest.approx(float(golden["map_i2t_L2"]), abs=1e-9)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 25),
    n_classes=st.integers(1, 5),
    distance=st.sampled_from(["cosine", "euclidean"]),
    block=st.integers(1, 30),
    coarse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_blocks_equal_the_definition_ties_included(seed, n, n_classes, distance, block, coarse):
    images, texts, labels = pairs(n, n_classes, seed=seed)
    if coarse:
        # Few distinct vectors, so that most distances are ties.
        images, texts = np.sign(images[:, :2]), np.sign(texts[:, :2])
    found = mean_average_precision(images, texts, labels, labels, distance=distance, block=block)
    wanted = plainly(images, texts, labels, labels, distance)
    scored = [ap for ap in wanted if ap is not None]
    assert (found.scored, found.without_relevant, found.absent) == (len(scored), n - len(scored), 0)
    if scored:
        assert found.mean == pytest.approx(np.mean(scored), abs=1e-9)
    for c in range(n_classes):
        own = [ap for ap, row in zip(wanted, labels, strict=True) if row[c] and ap is not None]
        assert found.per_class[c] == pytest.approx(np.mean(own), abs=1e-9) if own else np.isnan(found.per_class[c])


@given(seed=st.integers(0, 2**32 - 1), block=st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_the_size_of_a_block_changes_nothing(seed, block):
    images, texts, labels = pairs(60, 4, seed=seed)
    whole = mean_average_precision(images, texts, labels, labels, block=60)
    assert mean_average_precision(images, texts, labels, labels, block=block).mean == pytest.approx(
        whole.mean, abs=1e-12
    )


def test_a_perfect_space_scores_1_and_its_mirror_image_much_less():
    labels = np.eye(4, dtype=np.int8)[np.arange(40) % 4]
    perfect = {"image": labels.astype(float), "text": labels.astype(float)}
    assert two_way_score(perfect, labels).mean == 1.0
    assert two_way_score({"image": labels.astype(float), "text": -labels.astype(float)}, labels).mean < 0.5


def test_queries_without_a_relevant_item_are_left_out_and_counted():
    images, texts, labels = pairs(30, 3)
    labels[:5] = 0
    labels[5] = [0, 0, 1]
    labels[6:, 2] = 0
    items = texts[6:]
    score = mean_average_precision(images, items, labels, labels[6:])
    assert score.without_relevant == 6 + int((labels[6:].sum(axis=1) == 0).sum())
    assert score.scored + score.without_relevant == 30
    assert np.isfinite(score.mean)
    assert np.isnan(score.per_class[2])


def test_without_any_label_there_is_no_mean_but_a_count():
    images, texts, labels = pairs(10, 3)
    score = mean_average_precision(images, texts, 0 * labels, 0 * labels)
    assert np.isnan(score.mean)
    assert (score.scored, score.without_relevant) == (0, 10)


def test_absent_modalities_are_neither_queries_nor_items():
    images, texts, labels = pairs(30, 3)
    images[:4] = 0
    texts[20:23] = 0
    score = mean_average_precision(images, texts, labels, labels)
    kept = np.r_[0:20, 23:30]
    bare = mean_average_precision(images[4:], texts[kept], labels[4:], labels[kept])
    assert score.mean == pytest.approx(bare.mean, abs=1e-12)
    assert score.absent == 7


def test_half_precision_maps_on_disk_are_read_as_they_are(tmp_path):
    images, texts, labels = (block.astype(np.float16) for block in pairs(50, 3))
    for name, block in (("image", images), ("text", texts)):
        np.save(tmp_path / f"{name}.npy", block)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "text")}
    inside = {"image": images.astype(float), "text": texts.astype(float)}
    assert two_way_score(mapped, labels).mean == two_way_score(inside, labels).mean


def test_memory_grows_with_a_block_and_not_with_all_pairs():
    images, texts, labels = pairs(3000, 4)
    tracemalloc.start()
    try:
        mean_average_precision(images, texts, labels, labels, block=16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3000 * 3000 * 8 / 10


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"distance": "manhattan"}, InvalidRetrievalOption, "'manhattan'; choose one of"),
        ({"block": 0}, InvalidRetrievalOption, "block is 0"),
        ({"items": np.ones((5, 4))}, FeaturesMismatch, "one shared space"),
        ({"items": np.full((5, 3), np.nan)}, FeaturesMismatch, "row 0 holds NaN"),
        ({"item_labels": np.ones((4, 2))}, LabelsInvalid, r"item_labels have shape \(4, 2\)"),
        ({"item_labels": np.ones((5, 3))}, LabelsInvalid, "the same C for both"),
        ({"query_labels": np.ones(5)}, LabelsInvalid, "query_labels"),
    ],
)
def test_wrong_input_is_refused_with_the_field_and_the_remedy(change, error, words):
    given_ = {"queries": np.ones((5, 3)), "items": np.ones((5, 3))}
    given_ |= {"query_labels": np.ones((5, 2)), "item_labels": np.ones((5, 2))}
    with pytest.raises(error, match=words):
        mean_average_precision(**{**given_, **change})


def test_a_missing_modality_is_named():
    with pytest.raises(FeaturesMismatch, match="lacks 'text'"):
        two_way_score({"image": np.ones((2, 2))}, np.ones((2, 1)))
