"""Decides where half precision (bf16 autocast) is used.

Rule: a tower runs in bf16 when the device multiplies bf16 natively (AMX or AVX-512 BF16 on a CPU, CUDA from Ampere
on) and, on a fixed probe, no cosine between vectors moves by 1e-2 or more against fp32.
The rule depends on the hardware and the weights only, not on a stopwatch: two processes of one machine decide
alike. Measured on a CPU with AMX: MiniLM in bf16 is twice as fast and passes; EfficientNet-Lite0 would be 1.4
times as fast but moves cosines between real pictures by up to 0.028, and is held at fp32 by the rule. On an H100 the
rule decides the same (0.002 and 0.017); fp32 convolutions there are TF32, which moves cosines by 0.0006.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

MAX_COSINE_SHIFT = 1e-2


def has_native_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for bf16 products."""
    if device.type == "cuda":
        # Ampere and later; torch's own question says yes to older cards too, which emulate bf16 slowly.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@torch.inference_mode()
def bf16_is_safe(tower: Callable[[Tensor], Tensor], probe: Tensor, device: torch.device) -> bool:
    """Return whether bf16 moves every cosine among the probe's rows by less than MAX_COSINE_SHIFT."""
    exact = normalize(tower(probe).float(), dim=1)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        rounded = normalize(tower(probe).float(), dim=1)
    within = (exact @ exact.T - rounded @ rounded.T).abs()
    across = (exact @ exact.T - exact @ rounded.T).abs()
    return bool((torch.maximum(within, across) < MAX_COSINE_SHIFT).all())  # NaN compares false: not safe
