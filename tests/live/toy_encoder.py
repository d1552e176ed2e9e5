"""A cheap encoder for the tests of the loop: what an encoder sees is tested elsewhere, here it only has to be fast.

MMAL_ENCODER=import:tests.live.toy_encoder:make; TOY_ENCODER_DELAY slows it by that many seconds an item.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

IMAGE_DIM, TEXT_DIM = 48, 64


class ToyEncoder:
    """Colours on a 4 x 4 grid; hashed words."""

    aligned = False

    def __init__(self, id: str) -> None:
        self.id = id
        self.dims = {"image": IMAGE_DIM, "text": TEXT_DIM}
        self.delay = float(os.environ.get("TOY_ENCODER_DELAY", "0"))

    def encode_images(self, images: Sequence[Image]) -> np.ndarray:
        time.sleep(self.delay * len(images))
        grid = [np.asarray(image.resize((4, 4)), np.float32).ravel() / 255.0 + 1e-3 for image in images]
        return _unit(np.stack(grid))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.full((len(texts), TEXT_DIM), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % TEXT_DIM] += 1.0
        return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(id: str, device: str) -> ToyEncoder:
    """What MMAL_ENCODER names."""
    del device
    return ToyEncoder(id)
