"""How retrieval models are kept: each with its kind and format, its head among its arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from backend.errors import HeadStateInvalid
from backend.learners.late_fusion import LateFusionHead

FORMAT = "1"


def state_with_head(
    kind: str, head: LateFusionHead, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata strings of a whole model (safetensors holds both)."""
    own, described = head.state()
    together = {**part_named("head", own), **arrays}
    return (
        {name: np.ascontiguousarray(array) for name, array in together.items()},
        {"kind": kind, "format": FORMAT, **metadata, "head": json.dumps(described)},
    )


def part_named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under names that say what they are part of."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def saved_head(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> LateFusionHead:
    """The head of a kept model."""
    own = {name.removeprefix("head."): array for name, array in arrays.items() if name.startswith("head.")}
    return LateFusionHead.from_state(own, json.loads(metadata["head"]))


@contextmanager
def rebuilding(kind: str, metadata: Mapping[str, str]) -> Iterator[None]:
    """Around the rebuilding of a model of this kind.

    Raises
    ------
    HeadStateInvalid
        The state is of another kind or format, or something in it is missing or garbled.
    """
    found = (metadata.get("kind"), metadata.get("format"))
    if found != (kind, FORMAT):
        raise HeadStateInvalid(f"kind, format = {found}, expected {(kind, FORMAT)}; retrain the model")
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise HeadStateInvalid(f"saved model is incomplete or damaged ({error!r}); retrain the model") from error
