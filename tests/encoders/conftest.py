"""The default encoder and a small checkpoint, on every device this machine has."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from backend.encoders import load_encoder
from backend.encoders.open_clip_encoder import OpenClipEncoder
from backend.encoders.torchvision_repair import import_torchvision

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
MODEL = "ViT-S-32-alt"


@cache
def _packaged(device: str) -> OpenClipEncoder:
    torch.set_num_threads(2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loaded = load_encoder("packaged", device=device)
    # Building draws random weights; the caller's stream must not notice.
    assert torch.equal(torch.rand(3), expected)
    assert isinstance(loaded, OpenClipEncoder)
    return loaded


@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def encoder(device: str) -> OpenClipEncoder:
    return _packaged(device)


@pytest.fixture(scope="session")
def exact() -> OpenClipEncoder:
    """At full precision on the CPU."""
    exact = copy.copy(_packaged("cpu"))
    exact.bf16 = {"image": False, "text": False}
    return exact


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Drawn scenes of several sizes, a gradient and noise."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(8):
        image = Image.new("RGB", (90 + 37 * number, 240 - 19 * number), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, size = rng.integers(0, 200, 3).tolist()
            colour = tuple(rng.integers(0, 256, 3).tolist())
            (draw.ellipse if number % 2 else draw.rectangle)((x, y, x + size, y + size // 2 + 5), fill=colour)
        drawn.append(image)
    noise = Image.fromarray(rng.integers(0, 256, (120, 100, 3), dtype=np.uint8))
    return [*drawn, Image.linear_gradient("L").convert("RGB"), noise]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of a small open_clip model with seeded weights."""
    import_torchvision()
    import open_clip

    torch.set_num_threads(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.create_model(MODEL, pretrained=None)
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(model.state_dict(), path)
    return path
