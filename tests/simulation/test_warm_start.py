"""Warm starts for simulations: never trained on the set under test, and measured against exact chance."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from backend.errors import ReplayInvalid
from backend.simulation import warm_start
from backend.simulation.tower_classes import class_names, tower_classes
from backend.simulation.warm_start import PairSet, chance, held_out_quarter, scored, sources_without, train_warm_start


def tiny_set(name: str, n: int = 40) -> PairSet:
    """Rows of one hidden scene each, the two views the same for every set."""
    views = np.random.default_rng(0)
    maps = {"image": views.normal(size=(5, 14)), "text": views.normal(size=(5, 10))}
    rng = np.random.default_rng(sum(map(ord, name)))
    hidden = rng.normal(size=(n, 5))
    features = {m: hidden @ view + 0.3 * rng.normal(size=(n, view.shape[1])) for m, view in maps.items()}
    return PairSet(
        name,
        {m: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for m, x in features.items()},
        np.arange(n),
    )


@pytest.fixture
def sets_on_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the named sets tiny ones; returns the names that were asked for."""
    asked: list[str] = []

    def read(name: str, cache_dir: Path, encoder: str = "packaged") -> PairSet:
        asked.append(name)
        return tiny_set(name)

    monkeypatch.setattr(warm_start, "pair_set", read)
    monkeypatch.setattr(warm_start, "tower_classes", lambda cache_dir, encoder: None)
    return asked


def test_the_set_under_test_and_what_is_made_from_it_teach_nothing():
    assert sources_without(("openclipart16", "fluent57"), ("fluent57",)) == ["openclipart16"]
    assert sources_without(("openclipart16", "fluent57"), ("demo",)) == ["fluent57"]
    assert sources_without(("demo", "fluent57"), ("openclipart16",)) == ["fluent57"]
    assert sources_without(("openclipart16", "fluent57"), ("tux12",)) == ["fluent57", "openclipart16"]
    with pytest.raises(ReplayInvalid, match="fluent57"):
        sources_without(("fluent57",), ("fluent57",))


def test_a_warm_start_is_trained_once_and_read_from_the_cache_afterwards(
    tmp_path: Path, sets_on_disk: list[str], monkeypatch: pytest.MonkeyPatch
):
    first = train_warm_start(exclude=["openclipart16"], cache_dir=tmp_path)
    assert sets_on_disk == ["fluent57"]

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(warm_start, "projection_of", never)
    again = train_warm_start(exclude=["openclipart16"], cache_dir=tmp_path)
    for modality in ("image", "text"):
        np.testing.assert_array_equal(first.weights[modality], again.weights[modality])
    with pytest.raises(AssertionError, match="trained again"):
        train_warm_start(exclude=["fluent57"], cache_dir=tmp_path)


def test_it_finds_pairs_of_a_set_it_has_not_seen(tmp_path: Path, sets_on_disk: list[str]):
    head = train_warm_start(exclude=["tux12"], cache_dir=tmp_path)
    result = scored(head, tiny_set("tux12"), "both", "tux12")
    assert result.chance.mean(1) == pytest.approx(1 / 40)
    assert result.found.mean(1) > 0.3


def test_chance_is_the_mean_over_all_orders():
    pairs = np.array([[0, 0], [1, 0], [2, 1], [3, 2], [4, 1]])
    for side, found in enumerate(
        (chance(pairs, (1, 2, 4, 9)).image_to_text, chance(pairs, (1, 2, 4, 9)).text_to_image)
    ):
        size = 5 if side else 3
        for depth in (1, 2, 4, 9):
            hits = [
                np.mean(
                    [
                        bool(set(order[:depth]) & set(pairs[pairs[:, side] == q, 1 - side].tolist()))
                        for q in range(3 if side else 5)
                    ]
                )
                for order in itertools.permutations(range(size))
            ]
            assert found[depth] == pytest.approx(np.mean(hits))


def test_near_equal_texts_are_held_out_together():
    groups = np.random.default_rng(0).integers(0, 20, 100)
    held = held_out_quarter(groups, 3)
    assert not set(groups[held]) & set(groups[~held])
    assert len(set(groups[held])) == len(set(groups)) // 4


def test_the_image_tower_s_classes_are_named_in_the_order_of_its_classifier(tmp_path: Path):
    names = class_names()
    assert len(names) == 1000
    assert (names[1], names[281], names[951]) == ("goldfish", "tabby", "lemon")
    assert tower_classes(tmp_path, "open_clip:ViT-B-32/openai") is None
