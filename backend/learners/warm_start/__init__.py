"""Projections that were trained beforehand, so that a project without pairs starts with a joint space.

A file belongs to one encoder: its rows mean nothing to the rows of another. CARD.md tells what the shipped one was
trained on and what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from backend.errors import HeadStateInvalid, WarmStartUnsuited
from backend.learners.projection import ProjectionHead

FOLDER = Path(__file__).parent
ENCODER = "encoder"


def shipped_warm_start(encoder_id: str) -> ProjectionHead | None:
    """The projection that ships for this encoder; None where none does, and training starts from nothing.

    An encoder with a joint space of its own (CLIP, SigLIP) needs none: start from ``ProjectionHead.identity``.
    """
    for path in sorted(FOLDER.glob("*.safetensors")):
        if _read(path)[1].get(ENCODER) == encoder_id:
            return read_warm_start(path, encoder_id)
    return None


def read_warm_start(path: Path, encoder_id: str) -> ProjectionHead:
    """The projection in this file.

    Raises WarmStartUnsuited where it was trained on the rows of another encoder, HeadStateInvalid where the file is
    missing or no projection.
    """
    arrays, metadata = _read(path)
    owner = metadata.get(ENCODER, "an encoder it does not name")
    if owner != encoder_id:
        raise WarmStartUnsuited(
            f"{path.name} was trained on rows of {owner}, and the encoder in use is {encoder_id}; start without it"
            " (start=None), or train one for this encoder: python -m benchmarks.warm_start"
        )
    return ProjectionHead.from_state(arrays, metadata)


def write_warm_start(path: Path, head: ProjectionHead, encoder_id: str, notes: Mapping[str, str]) -> None:
    """Write a projection for this encoder as safetensors in float16; notes: more metadata, such as what it saw."""
    arrays, metadata = head.state()
    half = {name: np.ascontiguousarray(array, dtype=np.float16) for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    save_file(half, unfinished, metadata={**notes, **metadata, ENCODER: encoder_id})
    # safetensors writes for its owner only, and a package is read by whoever runs it.
    unfinished.chmod(0o644)
    unfinished.replace(path)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise HeadStateInvalid(f"{path} cannot be read as safetensors: {error}. Train it again.") from error
