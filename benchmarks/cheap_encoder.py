"""Vectors of the packaged encoder's shape at no cost, for benchmarks of everything but the encoder.

MMAL_ENCODER=import:benchmarks.cheap_encoder:make. A text `class 3 item 17` lies near the others of class 3.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

DIMS = {"image": 1280, "text": 384}
CLASSES = 20
# A backend that embeds by it, with the leases of production and not those of the tests.
ENVIRONMENT = {
    "MMAL_ENCODER": "import:benchmarks.cheap_encoder:make",
    "MMAL_ENCODE_BATCH": "256",
    "MMAL_LEASE_SECONDS": "30",
}


class CheapEncoder:
    """Random directions, drawn from the content."""

    aligned = False

    def __init__(self, id: str) -> None:
        self.id, self.dims = id, DIMS
        rng = np.random.default_rng(0)
        self._centres = {m: rng.normal(size=(CLASSES, d)).astype(np.float32) for m, d in DIMS.items()}

    def encode_images(self, images: Sequence[Image]) -> np.ndarray:
        """Near the centre of the class that the red channel names."""
        colours = [image.getpixel((0, 0)) for image in images]
        seeds = [int.from_bytes(bytes(colour), "big") for colour in colours]  # type: ignore[arg-type]
        return self._near("image", [colour[0] % CLASSES for colour in colours], seeds)  # type: ignore[index]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Near the centre of the class that the second word names."""
        classes = [int(text.split()[1]) % CLASSES for text in texts]
        return self._near("text", classes, [zlib.crc32(text.encode()) for text in texts])

    def _near(self, modality: str, classes: list[int], seeds: list[int]) -> np.ndarray:
        dims = DIMS[modality]
        noise = np.stack([np.random.default_rng(seed).standard_normal(dims, np.float32) for seed in seeds])
        rows = self._centres[modality][classes] + 1.5 * noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(id: str, device: str) -> CheapEncoder:
    """What MMAL_ENCODER names."""
    del device
    return CheapEncoder(id)
