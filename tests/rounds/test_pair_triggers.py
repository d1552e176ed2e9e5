"""When a round of a pairing project is due, and what it reads of a stream's past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.choosing import load_catalogue
from backend.rounds.pairing.round import settled_pairs
from backend.rounds.pairing.settling import settle
from backend.rounds.pairing.triggers import ARRIVALS
from backend.store import catalogue, pair_queries
from tests.rounds.pairing_world import PairingWorld


def test_a_full_buffer_is_asked_about_though_further_items_keep_arriving(tmp_path: Path) -> None:
    world = PairingWorld(tmp_path, stream_buffer=20)
    world.arrive(9)
    world.arrive(5, embedded=False)
    assert world.due() == ""
    world.arrive(1)
    assert "20 items" in world.due()


def test_items_are_judged_once_all_are_embedded_or_many_though_further_ones_keep_arriving(tmp_path: Path) -> None:
    world = PairingWorld(tmp_path, stream_mode="item")
    world.arrive(2)
    assert "4 items" in world.due()
    world.arrive(1, embedded=False)
    assert world.due() == ""
    world.arrive(ARRIVALS // 2)
    assert f"{ARRIVALS + 4} items" in world.due()
    world.publish(waiting=ARRIVALS + 4, embedded=ARRIVALS + 4)
    assert world.due() == ""


@pytest.mark.parametrize("options", [{"stream_buffer": 4}, {"stream_mode": "item"}])
def test_a_stream_waits_until_its_past_is_embedded_again_by_a_new_encoder(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    world = PairingWorld(tmp_path, **options)
    world.arrive(2)
    past = world.arrive(1, embedded=False, state="dropped")
    assert world.due() == ""
    catalogue.embedded(world.store, 1, world.encoder, {n: ("content", f"hash {n}", "") for n in past})
    assert world.due()


def test_questions_of_a_round_that_was_cut_off_are_asked_again_and_older_ones_wait(tmp_path: Path) -> None:
    world = PairingWorld(tmp_path, batch_size=2)
    image, text = world.arrive(1, state="pool")
    world.publish(embedded=2, batch=2)
    world.ask(image, text)
    assert "cut off" not in world.due()
    world.ask(image, text, round_number=2)
    assert "cut off" in world.due()


def test_a_round_reads_nothing_of_what_a_stream_let_go_but_what_answers_speak_of(tmp_path: Path) -> None:
    world = PairingWorld(tmp_path, stream_buffer=4)
    past = world.arrive(300, state="dropped")
    images, texts = past[:300], past[300:]
    waiting = world.arrive(2)
    world.ask(images[0], texts[0], answer="pick", partner=texts[0], answered_at="2026-01-01T10:00:00Z")
    world.ask(images[1], texts[0], answer="pick", partner=texts[0], answered_at="2026-01-01T11:00:00Z")
    world.ask(images[2], texts[2], answer="none")
    settled = settle(pair_queries.every(world.store, 1), {}, 2)
    assert (list(settled.pairs), len(settled.conflicts)) == ([(images[0], texts[0])], 1)
    arrays = load_catalogue(world.services, 1, settled)
    assert arrays.numbers["image"].tolist() == [images[0], images[1], *waiting[:2]]
    assert arrays.numbers["text"].tolist() == [texts[0], *waiting[2:]]
    assert arrays.states["image"].tolist() == ["dropped", "dropped", "buffer", "buffer"]
    np.testing.assert_array_equal(arrays.known(settled), [[0, 0]])


def test_of_two_claims_on_one_caption_the_later_gets_another_one_of_the_same_words(tmp_path: Path) -> None:
    world = PairingWorld(tmp_path)
    numbers = world.arrive(3, state="pool")
    images, texts = numbers[:3], numbers[3:]
    same = dict.fromkeys(texts[:2], ("content", "hash of the words", ""))
    catalogue.embedded(world.store, 1, world.encoder, same)
    assert catalogue.equal_contents(world.store, 1, [texts[1], texts[2], images[0]]) == {
        texts[0]: [texts[1]],
        texts[1]: [texts[0]],
    }
    for image in images[:2]:
        world.ask(image, *texts, answer="pick", partner=texts[0], answered_at=f"2026-01-01T10:00:0{image}Z")
    asked = pair_queries.every(world.store, 1)
    settled = settled_pairs(world.services, 1, asked, 2, ProjectOptions())
    assert set(settled.pairs) == {(images[0], texts[0]), (images[1], texts[1])}
    assert not settled.conflicts
