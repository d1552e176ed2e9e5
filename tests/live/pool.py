"""Small real tasks: a coloured picture inside the task and a few words about it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

LABELS = ("warm", "cold", "grey")
CONFIG = """<View>
  <Image name="picture" value="$photo"/>
  <Text name="words" value="$title"/>
  <Choices name="tone" toName="picture" choice="single">
    <Choice value="warm"/><Choice value="cold"/><Choice value="grey"/>
  </Choices>
</View>"""
MULTI_CONFIG = CONFIG.replace('choice="single"', 'choice="multiple"')
_COLOURS = {"warm": (220, 90, 40), "cold": (40, 110, 220), "grey": (128, 128, 128)}
_WORDS = {"warm": ("sun", "fire", "sand"), "cold": ("ice", "sea", "sky"), "grey": ("stone", "fog", "steel")}


def make_tasks(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Task data with the true answer under `truth`, which no tag shows."""
    rng = np.random.default_rng(seed)
    tasks = []
    for number in range(count):
        truth = LABELS[int(rng.integers(len(LABELS)))]
        colour = np.clip(np.array(_COLOURS[truth]) + rng.normal(0, 35, (8, 8, 3)), 0, 255).astype(np.uint8)
        words = [str(rng.choice(_WORDS[truth])), str(rng.choice(["morning", "evening", "noon"])), f"no{number}"]
        tasks.append({"photo": data_uri(colour), "title": " ".join(words), "truth": truth})
    return tasks


def data_uri(pixels: np.ndarray) -> str:
    """A PNG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
