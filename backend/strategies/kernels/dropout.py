"""Dropout on frozen features in front of a linear head: disagreement and mutual information."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from backend.strategies.kernels.linear_scores import LinearScores, softmax_rows


def mutual_information(passes: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """H(mean over passes) - mean over passes of H, in nats, (n,) float64, never below 0.

    passes: (T, n, C) probabilities of T stochastic passes; multi-label: the mean over classes of the binary forms.
    Source: Houlsby et al., arXiv 1112.5745, eq. 2; Gal et al., ICML 2017 (dropout passes).
    """
    of_mean = _entropy(passes.mean(axis=0), multi_label)
    return np.asarray(np.maximum(of_mean - _entropy(passes, multi_label).mean(axis=0), 0.0), dtype=np.float64)


def _entropy(p: np.ndarray, multi_label: bool) -> np.ndarray:
    if multi_label:
        return -(_plogp(p) + _plogp(1.0 - p)).mean(axis=-1)
    return -_plogp(p).sum(axis=-1)


def _plogp(p: np.ndarray) -> np.ndarray:
    # p = 0 gives 0: the smallest float above it times its logarithm is as good as nothing.
    return p * np.log(np.maximum(p, np.finfo(p.dtype).tiny))


def thinned_heads(scores: LinearScores, rate: float, passes: int, rng: np.random.Generator) -> np.ndarray:
    """(T, sum D, K) float32 weights of ``passes`` heads, each for all records: the weights of the numbers kept,
    divided by 1 - rate, and zeros. (Leaving the zeros in is faster than taking columns out of every record.)"""
    kept = rng.random((passes, scores.weights.shape[1])) >= rate
    return np.stack([scores.weights.T * (row[:, None] / (1.0 - rate)) for row in kept]).astype(np.float32)


def thinned_probabilities(
    joined: np.ndarray, scores: LinearScores, heads: np.ndarray, *, multi_label: bool
) -> np.ndarray:
    """(T, b, K) float32 probabilities of each thinned head."""
    bias = scores.bias.astype(np.float32)
    out = np.empty((len(heads), len(joined), len(bias)), dtype=np.float32)
    for row, weights in zip(out, heads, strict=True):
        np.matmul(joined, weights, out=row)
        row += bias
        row[...] = expit(row) if multi_label else softmax_rows(row)
    return out


def disagreements(
    joined: np.ndarray, scores: LinearScores, rate: float, passes: int, rng: np.random.Generator
) -> np.ndarray:
    """(b,) int: how many of ``passes`` passes change the predicted class; each record and pass has its own mask.

    Source: Gupte et al., DropQuery, TMLR 2024, section 4.
    """
    weights = np.ascontiguousarray(scores.weights.T, dtype=np.float32)
    bias = scores.bias.astype(np.float32)
    clean = (joined @ weights + bias).argmax(axis=1)
    changed = np.zeros(len(joined), dtype=np.int64)
    scale = np.float32(1.0 / (1.0 - rate))
    for _ in range(passes):
        kept = rng.random(joined.shape, dtype=np.float32) >= rate
        changed += ((joined * kept) @ weights * scale + bias).argmax(axis=1) != clean
    return changed
