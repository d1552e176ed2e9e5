"""Label names as the encoder's text tower sees them: what can be known about classes before the first label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from backend.encoders.door import Encoder


def readable(name: str) -> str:
    """A label name as words: `food-fruit`, `food_fruit` and `foodFruit` all become "food fruit"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\s_\-/]+", spaced)).strip().lower() or name


def modalities_with_names(encoder: Encoder) -> tuple[str, ...]:
    """The modalities whose rows may be compared with a text: image rows only where both towers share a space."""
    return ("image", "text") if encoder.aligned else ("text",)


def encode_label_names(encoder: Encoder, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Modality -> (C, D_m) unit rows, one a label name, for each modality that they may be compared with."""
    rows = encoder.encode_texts([readable(name) for name in names])
    return dict.fromkeys(modalities_with_names(encoder), rows)
