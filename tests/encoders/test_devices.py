"""Where the towers run, and in what precision, is not seen in the vectors beyond what the rule promises."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from backend.encoders import load_encoder
from backend.encoders.open_clip_encoder import OpenClipEncoder
from backend.encoders.packaged import packaged_preprocess
from backend.encoders.precision import MAX_COSINE_SHIFT, has_native_bf16
from backend.encoders.preparation import PicturePreparation
from backend.errors import EncoderUnavailable
from tests.encoders.conftest import MODEL

TEXTS = [f"{first} {second}" for first in ("red", "old", "Map of", "two") for second in ("house", "dog", "Spain", "")]


def test_no_cosine_moves_by_a_hundredth_against_full_precision_on_the_cpu(
    encoder: OpenClipEncoder, exact: OpenClipEncoder, pictures: list[Image.Image]
) -> None:
    """Vectors of all devices are kept under one name, so they must be comparable."""
    for own, reference in (
        (encoder.encode_images(pictures), exact.encode_images(pictures)),
        (encoder.encode_texts(TEXTS), exact.encode_texts(TEXTS)),
    ):
        assert np.abs(own @ own.T - reference @ reference.T).max() < MAX_COSINE_SHIFT
        assert np.abs(reference @ own.T - reference @ reference.T).max() < MAX_COSINE_SHIFT


def test_a_checkpoint_encodes_alike_on_every_device(
    checkpoint: Path, device: str, pictures: list[Image.Image]
) -> None:
    spec = f"open_clip:{MODEL}:{checkpoint}"
    own, exact = load_encoder(spec, device=device), load_encoder(spec, device="cpu")
    exact.bf16 = {"image": False, "text": False}  # type: ignore[attr-defined]
    for rows, reference in (
        (own.encode_images(pictures), exact.encode_images(pictures)),
        (own.encode_texts(TEXTS), exact.encode_texts(TEXTS)),
    ):
        assert np.abs(rows @ reference.T - reference @ reference.T).max() < MAX_COSINE_SHIFT


def test_pictures_are_prepared_as_the_models_own_transform_does_to_the_bit(pictures: list[Image.Image]) -> None:
    transform = packaged_preprocess()
    preparation = PicturePreparation(transform)
    modes = [*pictures, pictures[0].convert("L"), pictures[1].convert("P"), Image.new("RGB", (1, 700))]
    batches = [preparation.pixels(batch, torch.device("cpu")) for batch in preparation.batches(modes, 5)]
    assert [len(batch) for batch in batches] == [5, 5, 3]
    expected = torch.stack([transform(picture.convert("RGB")) for picture in modes])
    assert torch.equal(torch.cat(batches), expected)


def test_a_transform_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="ToTensor and Normalize"):
        PicturePreparation(SimpleNamespace(transforms=[str, int, float]))


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:99", "cuda:x", "meta", "hpu"])
def test_a_device_that_cannot_be_used_is_named_with_those_that_can(name: str) -> None:
    with pytest.raises(EncoderUnavailable) as caught:
        load_encoder("packaged", device=name)
    message = str(caught.value)
    assert f"MMAL_DEVICE={name!r}" in message and "Set it to one of cpu" in message


@pytest.mark.parametrize(("capability", "native"), [((7, 0), False), ((7, 5), False), ((8, 6), True), ((9, 0), True)])
def test_half_precision_is_native_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_native_bf16(torch.device("cuda", 1)) is native


class _SmallMemory:
    """A tower on a device that holds few items at once."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.passed: list[int] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.passed.append(len(batch))
        return batch.float().flatten(1)[:, :1280] + 2


def _on_small_memory(encoder: OpenClipEncoder, holds: int, batch: int = 8) -> tuple[OpenClipEncoder, _SmallMemory]:
    tower = _SmallMemory(holds)
    small = copy.copy(encoder)
    small.batch = {**encoder.batch, "image": batch}
    small._towers = dataclasses.replace(encoder._towers, image=tower)
    return small, tower


def test_a_batch_too_large_for_the_memory_is_halved_and_stays_so(
    encoder: OpenClipEncoder, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    roomy, _ = _on_small_memory(encoder, 100)
    tight, tower = _on_small_memory(encoder, 3)
    np.testing.assert_array_equal(tight.encode_images(pictures), roomy.encode_images(pictures))
    assert tower.passed == [2] * 5
    assert "8 images" in caplog.text and "2 from now on" in caplog.text
    tight.encode_images(pictures[:4])
    assert tight.batch["image"] == 2 and tower.passed == [2] * 7


def test_a_few_items_for_which_there_is_no_memory_do_not_make_all_batches_small(
    encoder: OpenClipEncoder, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    busy, tower = _on_small_memory(encoder, 1)
    busy.encode_images(pictures[:3])
    assert "3 images at once: 1" in caplog.text and "from now on" not in caplog.text
    assert busy.batch["image"] == 8
    tower.holds = 8
    busy.encode_images(pictures)
    assert tower.passed == [1, 1, 1, 8, 2]


def test_no_memory_for_a_single_item_is_no_fault_of_the_item(
    encoder: OpenClipEncoder, pictures: list[Image.Image]
) -> None:
    full, _ = _on_small_memory(encoder, 0)
    with pytest.raises(EncoderUnavailable, match="MMAL_DEVICE"):
        full.encode_images(pictures)
