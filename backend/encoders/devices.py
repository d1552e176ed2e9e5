"""Finds the device that MMAL_DEVICE names, and says what is wrong with one that cannot be used."""

from __future__ import annotations

import torch

from backend.errors import EncoderUnavailable

DEVICE_SETTING = "MMAL_DEVICE"


def available_devices() -> list[str]:
    """Return the values of MMAL_DEVICE this machine has: cpu, and every CUDA device."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def usable_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one.

    Raises
    ------
    EncoderUnavailable
        There is no such device, or it computes nothing.
    """
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(wanted)
        # A device may be known, and even hold tensors, and yet run nothing (no kernels for an old card, "meta").
        (torch.ones(1, device=device) + 1).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise EncoderUnavailable(
            f"{DEVICE_SETTING}={name!r} cannot be used: {cause}. Set it to one of {', '.join(available_devices())}, "
            "or to auto."
        ) from error
    return device


def no_memory(device: torch.device, purpose: str) -> EncoderUnavailable:
    """Return the failure of a device whose memory is full."""
    return EncoderUnavailable(
        f"{DEVICE_SETTING}: {device} has no memory left {purpose}. End what else runs on it, name another device or "
        "a smaller encoder."
    )
