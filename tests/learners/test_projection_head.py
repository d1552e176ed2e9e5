"""Projections learned from pairs: what they gain, what they leave alone, and that they come back from disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from backend.errors import FeaturesMismatch, HeadStateInvalid, InvalidOption, PairsInvalid
from backend.learners import projection, projection_training
from backend.learners.canonical import canonical_weights
from backend.learners.pair_scores import retrieval
from backend.learners.projection import ProjectionHead
from backend.learners.projection_training import TrainingOptions

LOSSES = ("clip", "siglip", "lit")
QUICK = TrainingOptions(steps=20, batch=16)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scenes(n: int, seed: int = 0, noise: float = 0.6) -> dict[str, np.ndarray]:
    """Images and texts of the same hidden scenes, each seen through a map of its own; row i with row i."""
    views = np.random.default_rng(99)
    maps = {"image": views.normal(size=(6, 24)), "text": views.normal(size=(6, 18))}
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6))
    return {m: unit(hidden @ view + noise * rng.normal(size=(n, view.shape[1]))) for m, view in maps.items()}


def diagonal(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return np.stack([rows, rows], axis=1)


def recall_at_1(head: ProjectionHead, features) -> float:
    return retrieval(head.embed("image", features["image"]), head.embed("text", features["text"])).mean(1)


def same(one: ProjectionHead, other: ProjectionHead) -> None:
    first, second = one.state(), other.state()
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for key, array in first[0].items():
        np.testing.assert_array_equal(array, second[0][key], err_msg=key)


# -- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_pairs_lift_the_recall_of_unseen_items_above_the_start_in_every_seed(loss):
    test = scenes(150, seed=1000)
    for seed in range(3):
        train, earlier = scenes(120, seed=seed), scenes(12, seed=seed + 50, noise=2.0)
        start = ProjectionHead.canonical([(earlier["image"], earlier["text"])], width=16)
        head = ProjectionHead.fit(train, diagonal(np.arange(120)), loss=loss, start=start, seed=seed)
        # Recall is the mean of 300 queries: three standard errors are below 0.09 everywhere.
        assert recall_at_1(head, test) > recall_at_1(start, test) + 0.09


def test_a_good_start_with_few_pairs_beats_the_same_pairs_without_it():
    test, few = scenes(150, seed=1000), scenes(15, seed=5)
    warm = ProjectionHead.fit(scenes(400, seed=1), diagonal(np.arange(400)), width=16)
    pairs = diagonal(np.arange(15))
    cold = ProjectionHead.fit(few, pairs, width=16)
    again = ProjectionHead.fit(few, pairs, start=warm)
    assert recall_at_1(again, test) > recall_at_1(cold, test) + 0.09


def test_lit_holds_the_image_side_still_and_the_others_move_it():
    train = scenes(40)
    start = ProjectionHead.random(train, width=8)
    for loss in LOSSES:
        head = ProjectionHead.fit(train, diagonal(np.arange(40)), loss=loss, start=start, options=QUICK)
        moved = {m: not np.array_equal(head.weights[m], start.weights[m]) for m in ("image", "text")}
        assert moved == {"image": loss != "lit", "text": True}


def test_each_round_starts_over_so_earlier_rounds_leave_no_trace():
    train = scenes(60)
    start = ProjectionHead.random(train, width=8)
    before = {m: w.copy() for m, w in start.weights.items()}
    first = ProjectionHead.fit(train, diagonal(np.arange(30)), start=start, options=QUICK)
    ProjectionHead.fit(train, diagonal(np.arange(60)), start=start, options=QUICK)
    same(first, ProjectionHead.fit(train, diagonal(np.arange(30)), start=start, options=QUICK))
    for m, weights in before.items():
        np.testing.assert_array_equal(weights, start.weights[m])


@given(st.integers(0, 2**20), st.sampled_from(LOSSES))
@settings(max_examples=10, deadline=None)
def test_the_order_and_repetition_of_the_pairs_do_not_matter(seed, loss):
    train, rng = scenes(40, seed=3), np.random.default_rng(seed)
    pairs = diagonal(np.arange(40))
    shuffled = rng.permutation(np.concatenate([pairs, pairs[:7]]))
    same(
        ProjectionHead.fit(train, pairs, loss=loss, width=8, options=QUICK),
        ProjectionHead.fit(train, shuffled, loss=loss, width=8, options=QUICK),
    )


def test_the_seed_decides_and_nothing_else():
    train, pairs = scenes(40), diagonal(np.arange(40))
    first = ProjectionHead.fit(train, pairs, width=8, seed=1, options=QUICK)
    same(first, ProjectionHead.fit(train, pairs, width=8, seed=1, options=QUICK))
    other = ProjectionHead.fit(train, pairs, width=8, seed=2, options=QUICK)
    assert not np.array_equal(first.weights["text"], other.weights["text"])


def test_extra_true_pairs_are_trained_on_like_the_others():
    train, pairs, also = scenes(40), diagonal(np.arange(40)), np.array([[0, 1], [2, 3]])
    same(
        ProjectionHead.fit(train, pairs, also=also, width=8, options=QUICK),
        ProjectionHead.fit(train, np.concatenate([also, pairs]), width=8, options=QUICK),
    )


def test_copies_of_one_caption_do_not_push_away_each_other_s_images():
    train, rng = scenes(60), np.random.default_rng(0)
    train["image"][:30] = unit(train["image"][0] + 0.1 * rng.normal(size=(30, 24)))
    train["text"][:30] = train["text"][0]
    told_apart = dict(train)
    told_apart["text"] = train["text"] + rng.normal(size=train["text"].shape).astype(np.float32) * 1e-2
    options = TrainingOptions(steps=100, batch=64, decay=0.0)

    def own_similarity(seen: dict[str, np.ndarray], **keywords: object) -> float:
        # SigLIP, whose negatives are counted one by one: 29 of them here for each true pair.
        head = ProjectionHead.fit(seen, diagonal(np.arange(60)), loss="siglip", width=16, options=options, **keywords)
        return float((head.embed("image", seen["image"][:30]) * head.embed("text", seen["text"][:30])).sum(1).mean())

    as_negatives = own_similarity(told_apart)
    assert own_similarity(train) > as_negatives + 0.1
    # Nearly equal vectors of one text: who knows the texts says so.
    number = {"text": np.r_[np.zeros(30, dtype=np.int64), np.arange(1, 31)]}
    assert own_similarity(told_apart, same=number) > as_negatives + 0.1


def test_no_batch_is_larger_than_asked_and_every_pair_is_seen_often_enough(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    real = projection_training.clip_loss

    def counted(image, text, scale, masked):
        seen.append(len(image))
        return real(image, text, scale, masked)

    monkeypatch.setattr(projection_training, "clip_loss", counted)
    options = TrainingOptions(steps=3, passes=4, batch=16)
    ProjectionHead.fit(scenes(50), diagonal(np.arange(50)), width=8, options=options)
    assert max(seen) <= 16
    assert sum(seen) == 4 * 50


@pytest.mark.parametrize("n", [12, 30, 300])
def test_canonical_directions_are_those_of_the_textbook(n):
    """Whitened cross-covariance, its singular vectors, each weighted by the root of its value."""
    train = scenes(n)
    x, y = (train[m].astype(np.float64) - train[m].mean(axis=0) for m in ("image", "text"))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)

    def root(rows: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(rows.T @ rows + np.eye(rows.shape[1]) / rows.shape[1])
        return (vectors / np.sqrt(values)) @ vectors.T

    left, strength, right = np.linalg.svd(root(x) @ x.T @ y @ root(y))
    k = 5
    expected = (root(x) @ left[:, :k] * strength[:k]) @ (root(y) @ right[:k].T).T
    image, text = canonical_weights([(train["image"], train["text"])], width=k)
    found = image.astype(np.float64) @ text.T.astype(np.float64)
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-6)


def test_each_source_of_pairs_counts_the_same_however_many_it_has():
    train, other = scenes(60), scenes(20, seed=2)
    sources = [(rows["image"], rows["text"]) for rows in (train, other)]
    tripled = [sources[0], tuple(np.repeat(rows, 3, axis=0) for rows in sources[1])]
    for one, two in zip(canonical_weights(sources, 8), canonical_weights(tripled, 8), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


# -- without pairs -----------------------------------------------------------------------------------------------


def test_without_a_pair_the_space_is_that_of_the_start():
    rows = {m: unit(np.random.default_rng(0).normal(size=(9, 12))) for m in ("image", "text")}
    own = ProjectionHead.identity(12)
    head = ProjectionHead.fit(rows, np.empty((0, 2), dtype=np.int64), start=own)
    same(head, own)
    for m in rows:
        np.testing.assert_allclose(head.embed(m, rows[m]), rows[m], atol=1e-6)


def test_pairs_that_are_all_the_same_one_give_a_space_all_the_same():
    train = scenes(6)
    for m in train:
        train[m][:] = train[m][0]
    head = ProjectionHead.fit(train, diagonal(np.arange(6)), width=10)
    np.testing.assert_allclose(np.linalg.norm(head.embed("text", scenes(4, seed=1)["text"]), axis=1), 1, atol=1e-6)


def test_without_a_pair_and_a_start_there_is_a_space_all_the_same():
    train = scenes(30)
    head = ProjectionHead.fit(train, np.empty((0, 2), dtype=np.int64), width=10)
    assert head.embed("text", train["text"]).shape == (30, 10)


# -- absent rows, chunks, disk -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 29), max_size=12), st.lists(st.integers(0, 29), max_size=12))
@settings(max_examples=15, deadline=None)
def test_absent_rows_stay_zero_and_the_others_are_of_unit_length(no_image, no_text):
    train = scenes(30)
    train["image"][no_image] = 0
    train["text"][no_text] = 0
    head = ProjectionHead.fit(train, diagonal(np.arange(30)), width=8, options=QUICK)
    for m, missing in (("image", no_image), ("text", no_text)):
        length = np.linalg.norm(head.embed(m, train[m]), axis=1)
        absent = np.isin(np.arange(30), missing)
        assert (length[absent] == 0).all()
        np.testing.assert_allclose(length[~absent], 1, atol=1e-6)


def test_pairs_with_an_absent_side_teach_nothing():
    train = scenes(30)
    train["image"][:5] = 0
    train["text"][5:8] = 0
    start = ProjectionHead.random(scenes(30), width=8)
    same(
        ProjectionHead.fit(train, diagonal(np.arange(30)), start=start, options=QUICK),
        ProjectionHead.fit(train, diagonal(np.arange(8, 30)), start=start, options=QUICK),
    )


def test_half_precision_memory_maps_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train = {m: rows.astype(np.float16) for m, rows in scenes(50).items()}
    mapped = {}
    for m, rows in train.items():
        mapped[m] = np.memmap(tmp_path / m, dtype=np.float16, mode="w+", shape=rows.shape)
        mapped[m][:] = rows
    head = ProjectionHead.fit(mapped, diagonal(np.arange(50)), width=8, options=QUICK)
    same(head, ProjectionHead.fit(train, diagonal(np.arange(50)), width=8, options=QUICK))
    whole = head.embed("image", train["image"])
    monkeypatch.setattr(projection, "CHUNK_ROWS", 7)
    np.testing.assert_allclose(head.embed("image", mapped["image"]), whole, atol=1e-6)
    assert whole.dtype == np.float32


def test_a_head_comes_back_from_disk_as_it_was(tmp_path: Path):
    head = ProjectionHead.fit(scenes(30), diagonal(np.arange(30)), loss="siglip", width=8, options=QUICK)
    arrays, metadata = head.state()
    save_file(arrays, tmp_path / "head.safetensors", metadata=metadata)
    with safe_open(tmp_path / "head.safetensors", framework="np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        back = ProjectionHead.from_state(read, file.metadata())
    same(head, back)
    rows = scenes(12, seed=8)["text"]
    np.testing.assert_array_equal(head.embed("text", rows), back.embed("text", rows))


@pytest.mark.parametrize("damage", ["kind", "array", "shape", "number"])
def test_a_damaged_head_is_refused(damage):
    arrays, metadata = ProjectionHead.identity(4).state()
    if damage == "kind":
        metadata["kind"] = "late_fusion"
    elif damage == "array":
        del arrays["centre.text"]
    elif damage == "shape":
        arrays["weights.text"] = arrays["weights.text"][:, :3]
    else:
        metadata["scale"] = "large"
    with pytest.raises(HeadStateInvalid, match="train"):
        ProjectionHead.from_state(arrays, metadata)


# -- refusals ----------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    train, pairs = scenes(10), diagonal(np.arange(10))
    with pytest.raises(FeaturesMismatch, match="joins"):
        ProjectionHead.fit({"image": train["image"]}, pairs)
    with pytest.raises(PairsInvalid, match="names text row 10"):
        ProjectionHead.fit(train, np.array([[0, 10]]))
    with pytest.raises(PairsInvalid, match="names image row -1"):
        ProjectionHead.fit(train, np.array([[-1, 0]]))
    with pytest.raises(PairsInvalid, match="shape"):
        ProjectionHead.fit(train, np.arange(10))
    with pytest.raises(PairsInvalid, match=r"same\['text'\]"):
        ProjectionHead.fit(train, pairs, same={"text": np.arange(9)})
    with pytest.raises(InvalidOption, match="clip, siglip, lit"):
        ProjectionHead.fit(train, pairs, loss="triplet")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="batch"):
        TrainingOptions(batch=1)
    with pytest.raises(FeaturesMismatch, match="encoder it was trained on"):
        ProjectionHead.fit(train, pairs, start=ProjectionHead.identity(7))
    with pytest.raises(FeaturesMismatch, match="encoder it was trained on"):
        ProjectionHead.identity(4).embed("sound", np.zeros((2, 4)))
    train["text"][3, 0] = np.nan
    with pytest.raises(FeaturesMismatch, match="NaN"):
        ProjectionHead.fit(train, pairs)


def test_projections_need_no_torch():
    code = "import sys, backend.learners.projection, backend.learners.warm_start; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
