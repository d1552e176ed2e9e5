"""Late fusion by the mean of the modalities' logits, from nothing but each modality's probabilities.

Logits enter a softmax only up to a constant a row, so log p_m serves as the logits of modality m; with several labels
a record logit(q_m) does. Source: bmmal.md section 1 (fuse = "sum") and 2.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from scipy.special import expit

from backend.strategies.kernels.linear_scores import softmax_rows


def as_logits(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Logits that give these probabilities (b, C), finite for 0 and 1 too, in their dtype (float32 at least)."""
    p = np.asarray(probabilities, dtype=np.result_type(probabilities, np.float32))
    tiny = np.finfo(p.dtype).tiny
    out = np.log(np.maximum(p, tiny))
    if multi_label:
        out -= np.log(np.maximum(1.0 - p, tiny))
    return out


def sum_fused(
    logits: Mapping[str, np.ndarray],
    at_zero: Mapping[str, np.ndarray],
    coalition: Collection[str],
    *,
    multi_label: bool,
) -> np.ndarray:
    """Probabilities (b, C) of the mean of the logits over all modalities, those outside ``coalition`` as zero rows.

    logits: modality -> (b, C) as ``as_logits`` gives them; at_zero: modality -> (C,) the same of a zero row (its
    bias alone).
    """
    mean = sum(logits[name] if name in coalition else at_zero[name][None, :] for name in logits) / len(logits)
    mean = np.broadcast_to(mean, next(iter(logits.values())).shape)
    return np.asarray(expit(mean) if multi_label else softmax_rows(mean))
