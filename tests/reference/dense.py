"""What the strategies compute, written out over the whole pool in float64 from docs/strategies.md, calling none of
their kernels: for tests of what ``select`` picks."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from backend.strategies import Pool

# Gains this close to the best are a tie and the lowest row wins (docs/strategies.md, Limits).
TIE = 1e-5


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def joined(pool: Pool) -> np.ndarray:
    """The vectors of all modalities, one after the other."""
    return np.concatenate([pool.features[name].astype(float) for name in pool.modalities], axis=1)


def centred(pool: Pool, among: np.ndarray | None = None) -> np.ndarray:
    """z = (x - mu) / |x - mu| of each modality, mu the mean of those that have it, of all or among some; zero where
    it is absent."""
    counted = np.ones(len(pool), dtype=bool) if among is None else np.isin(np.arange(len(pool)), among)
    blocks = []
    for name in pool.modalities:
        x = unit(pool.features[name].astype(float))
        there = np.linalg.norm(x, axis=1) > 0
        z = np.zeros_like(x)
        z[there] = unit(x[there] - x[there & counted].mean(axis=0))
        blocks.append(z)
    return np.concatenate(blocks, axis=1)


def apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distance of every two rows."""
    return ((left[:, None] - right[None]) ** 2).sum(axis=2)


def head_weights(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """(W over the joined vectors, b) of the classes that can be predicted."""
    assert pool.head is not None
    kept = np.ones(pool.n_classes, dtype=bool) if pool.multi_label else pool.head.seen
    weights = np.concatenate([pool.head.fused[name] for name in pool.modalities], axis=1).astype(float)
    return weights[kept], pool.head.fused_bias.astype(float)[kept]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def activated(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Probabilities of one label a record, or of each of several."""
    return 1.0 / (1.0 + np.exp(-logits)) if multi_label else softmax(logits)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """1 - (p1 - p2)."""
    top = np.sort(probabilities.astype(float), axis=1)
    return 1.0 - (top[:, -1] - top[:, -2])


def best_first(scores: np.ndarray, rows: np.ndarray) -> list[int]:
    """The rows by falling score."""
    return rows[np.argsort(-scores[rows], kind="stable")].tolist()


def greedy_cover(kernel: np.ndarray, weights: np.ndarray, labelled: np.ndarray, k: int) -> list[int]:
    """k times argmax over unlabelled x of sum_i weights_i max(0, kernel_ix - m_i), m_i the largest kernel with a
    label or earlier pick."""
    covered = kernel[:, labelled].max(axis=1, initial=0.0)
    picks: list[int] = []
    for _ in range(k):
        gains = (weights[:, None] * np.maximum(kernel - covered[:, None], 0.0)).sum(axis=0)
        gains[labelled] = -1.0
        gains[picks] = -1.0
        picks.append(int(np.argmax(gains >= gains.max() * (1.0 - TIE))))
        covered = np.maximum(covered, kernel[:, picks[-1]])
    return picks


def farthest_first(distances: np.ndarray, labelled: np.ndarray, k: int) -> list[int]:
    """k times the unlabelled row farthest from the nearest label or earlier pick, lowest row on ties."""
    centres = np.flatnonzero(labelled).tolist()
    picks: list[int] = []
    for _ in range(k):
        nearest = distances[:, centres + picks].min(axis=1)
        nearest[centres + picks] = -1.0
        picks.append(int(np.argmax(nearest)))
    return picks


def most_central(vectors: np.ndarray, rows: Collection[int] | np.ndarray) -> int:
    """The row nearest the mean of these rows."""
    members = np.asarray(rows)
    block = vectors[members]
    return int(members[((block - block.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def in_groups(member: np.ndarray, spread: float = 0.02, seed: int = 0) -> Callable[..., dict[str, np.ndarray]]:
    """Changes features into far and tight groups, to which any start of k-means comes; off the origin, as embeddings
    are, so that centring changes who is central."""
    rng = np.random.default_rng(seed)

    def change(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {}
        for name, rows in features.items():
            width = rows.shape[1]
            centres = np.eye(member.max() + 1, width) + rng.normal(size=width)
            out[name] = unit(centres[member] + spread * rng.normal(size=rows.shape)).astype(np.float32)
        return out

    return change
