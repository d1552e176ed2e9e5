"""Makes pictures into batches of pixels: Pillow's part on several threads, the arithmetic on the encoder's device.

On an accelerator one thread that scales pictures takes many times as long as the tower. Pixels travel as bytes, a
quarter of the numbers they become. On a CPU the result is that of the model's own transform, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor


class PicturePreparation:
    """What a model wants done to pictures.

    Parameters
    ----------
    transform
        Of open_clip: steps that make a picture of the tower's size, then ``ToTensor``, then ``Normalize``.
    """

    def __init__(self, transform: Any) -> None:
        *self._steps, to_tensor, self._normalize = transform.transforms
        names = [type(self._normalize).__name__, *(kind.__name__ for kind in type(to_tensor).__mro__)]
        if names[0] != "Normalize" or "ToTensor" not in names:
            raise TypeError(f"the transform must end in ToTensor and Normalize, not in {names[1]} and {names[0]}")

    def batches(self, images: Sequence[Image], size: int) -> Iterator[Tensor]:
        """Yield (n, 3, height, width) bytes for each ``size`` pictures, preparing the next while one is used."""
        # As many threads as torch computes on: its default counts the cores, and MMAL_TORCH_THREADS sets it.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            portions = (pool.map(self._picture, images[at : at + size]) for at in range(0, len(images), size))
            coming = next(portions, None)
            while coming is not None:
                ready = list(coming)
                coming = next(portions, None)
                yield torch.from_numpy(np.stack(ready)).permute(0, 3, 1, 2)

    def pixels(self, batch: Tensor, device: torch.device) -> Tensor:
        """Return a batch as the tower takes it: on the device, between 0 and 1, then normalized."""
        pixels: Tensor = self._normalize(batch.to(device).float().div(255))
        return pixels.contiguous(memory_format=torch.channels_last)

    def _picture(self, image: Image) -> np.ndarray:
        image = image.convert("RGB")
        for step in self._steps:
            image = step(image)
        return np.asarray(image)
