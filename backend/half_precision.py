"""Vectors are stored in half precision and reckoned with in single precision or better."""

from __future__ import annotations

import sys

import numpy as np

# From this many numbers on torch, which is several times as fast, converts instead of numpy.
TORCH_ABOVE = 1 << 16


def widen(block: np.ndarray, out: np.ndarray) -> None:
    """Copy the block into ``out``, an array of its shape or a part of one, in the dtype of ``out``."""
    # Not imported for this: the worker has it for the encoder, and the web process must not load it.
    torch = sys.modules.get("torch")
    if torch is not None and block.dtype == np.float16 and block.size > TORCH_ABOVE:
        # Memory-mapped blocks are read only, which torch warns about; it only reads them.
        block = block if block.flags.writeable else block.copy()
        torch.from_numpy(out).copy_(torch.from_numpy(block))
    else:
        out[:] = block


def single(block: np.ndarray) -> np.ndarray:
    """The block in float32, itself if it is."""
    if block.dtype == np.float32:
        return block
    out = np.empty(block.shape, dtype=np.float32)
    widen(block, out)
    return out
