"""What an encoder is to the rest of the project, and the way to get one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from backend.encoders.spec import SETTING, EncoderSpec, encoder_id, parse_spec
from backend.errors import EncoderUnavailable

if TYPE_CHECKING:
    from PIL.Image import Image


class Encoder(Protocol):
    """Turns pictures and texts into rows of unit length.

    Attributes
    ----------
    id : name of weights and preparation; vectors of equal ids may be compared and cached together
    dims : modality ("image", "text") -> length of its rows
    aligned : whether image rows and text rows live in one trained space
    """

    @property
    def id(self) -> str: ...

    @property
    def dims(self) -> Mapping[str, int]: ...

    @property
    def aligned(self) -> bool: ...

    def encode_images(self, images: Sequence[Image]) -> np.ndarray:
        """Return (n, dims["image"]) float32 rows of unit length."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dims["text"]) float32 rows of unit length."""
        ...


def load_encoder(spec: str = "packaged", *, device: str = "auto", cache_dir: Path | None = None) -> Encoder:
    """Load an encoder; takes seconds, so keep the result.

    Parameters
    ----------
    spec
        Value of MMAL_ENCODER: "packaged", "open_clip:NAME/PRETRAINED", "open_clip:NAME:/path/to/file", or
        "import:MODULE:FUNCTION" for an encoder of your own: the function takes `id` and `device` and returns an
        `Encoder`.
    device
        "auto" (CUDA when there is one), or any torch device.
    cache_dir
        Where hub weights are kept; None leaves it to open_clip. The other two kinds never touch the network.

    Raises
    ------
    EncoderSpecInvalid, EncoderUnavailable, EncoderCheckpointInvalid
    """
    parsed = parse_spec(spec)
    if parsed.kind == "import":
        return _imported(parsed, device)
    # torch is heavy: only those who load an encoder pay for it.
    from backend.encoders.open_clip_encoder import load

    return load(parsed, device=device, cache_dir=cache_dir)


def _imported(parsed: EncoderSpec, device: str) -> Encoder:
    try:
        make = getattr(importlib.import_module(parsed.model), parsed.weights)
    except (ImportError, AttributeError) as error:
        raise EncoderUnavailable(
            f"{SETTING}={parsed.text!r}: {error}. Put the module on PYTHONPATH and name a function it has."
        ) from error
    encoder: Encoder = make(id=encoder_id(parsed.text), device=device)
    return encoder
