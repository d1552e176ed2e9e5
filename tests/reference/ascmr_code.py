"""The query strategies of the ASCMR authors' code, formula by formula, for records of what they compute.

Not for choosing: most look at the image branch alone and several have a fault that changes what is picked (named in
each docstring). The strategies of this package are the ones to use. Quadratic in places, as the originals.

Source: ascmr.md section 3, from the authors' repository, commit 59e2e36 (2025-01-25). ``ids`` are the pool rows that
the positions of an array stand for; picks come in the order in which the authors return them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit

from backend.strategies.kernels.linear_scores import softmax_rows

# Returns the (C,) class scores at a point and their (C, D) gradients.
Scores = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
DEEPFOOL_STEPS = 50


def entropy_picks(scores: np.ndarray, ids: np.ndarray, b: int) -> np.ndarray:
    """The b smallest sum p log p, p = softmax of the image's cosines; scores: (u, C)."""
    p = softmax_rows(np.asarray(scores, dtype=np.float64))
    return np.asarray(ids[_smallest((p * np.log(p)).sum(axis=1), b)])


def bald_picks(passes: np.ndarray, ids: np.ndarray, b: int) -> np.ndarray:
    """The b smallest (mean entropy - entropy of the mean) of (T, u, C) probabilities. The authors' network has no
    dropout, so all their passes are equal and the order is that of rounding errors."""
    mean = passes.mean(axis=0)
    of_mean = -(mean * np.log(mean)).sum(axis=1)
    return np.asarray(ids[_smallest(-(passes * np.log(passes)).sum(axis=2).mean(axis=0) - of_mean, b)])


def centre_picks(distances: np.ndarray, among: np.ndarray, ids: np.ndarray, b: int) -> np.ndarray:
    """Greedy k-centre: distances (u, L) to the labelled rows, among (u, u); b times the farthest, lowest on ties."""
    nearest = distances.min(axis=1)
    picks = []
    for _ in range(b):
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, among[:, picks[-1]])
        nearest[picks[-1]] = -1.0
    return np.asarray(ids[picks])


def euclidean_table(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|l_i - r_j|, (a, b) float64: what CoreSet and CoreGCN take the k-centre of (un-normalised image rows, and
    hidden rows)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(left.astype(np.float64), right.astype(np.float64)))


def divergence_table(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """CDAL's distance (KL(p, q) + KL(q, p)) / 2 of softmax rows of the image's cosines, (a, b) float64."""
    p, q = softmax_rows(left.astype(np.float64)), softmax_rows(right.astype(np.float64))
    log_p, log_q = np.log(p), np.log(q)
    own_p, own_q = (p * log_p).sum(axis=1), (q * log_q).sum(axis=1)
    return np.asarray(0.5 * (own_p[:, None] + own_q[None, :] - p @ log_q.T - log_p @ q.T))


def badge_gradients(scores: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Blocks (1[c = argmax p] - p_c) h for the classes 0 and 1 only, (u, 2 D): the authors count the distinct
    *values* of the 0/1 labels as classes."""
    p = softmax_rows(np.asarray(scores, dtype=np.float64))
    residual = (np.arange(p.shape[1]) == p.argmax(axis=1)[:, None]) - p
    return np.concatenate([residual[:, [c]] * embeddings for c in (0, 1)], axis=1)


def graph_adjacency(embeddings: np.ndarray) -> np.ndarray:
    """(n, n) adjacency of CoreGCN: G diag(1 / column sums) + I, G the cosines without their diagonal."""
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = rows @ rows.T - np.eye(len(rows))
    return np.asarray(cosines / cosines.sum(axis=0) + np.eye(len(rows)))


def graph_scores(embeddings: np.ndarray, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(hidden rows (n, h), scores (n,)) of CoreGCN without dropout: relu(adj X W1 + b1), sigmoid(adj hidden W3 + b3).
    weights: ``gc1.weight`` (D, h), ``gc1.bias``, ``gc3.weight`` (h, 1), ``gc3.bias``."""
    adjacency = graph_adjacency(embeddings)
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    hidden = np.maximum(adjacency @ rows @ weights["gc1.weight"] + weights["gc1.bias"], 0.0)
    return hidden, np.asarray(expit(adjacency @ hidden @ weights["gc3.weight"] + weights["gc3.bias"]))[:, 0]


def graph_loss(known: np.ndarray, unknown: np.ndarray) -> float:
    """-mean ln s over labelled scores - 1.2 mean ln(1 - s) over the others."""
    return float(-np.log(known).mean() - 1.2 * np.log1p(-unknown).mean())


def uncertain_gcn_positions(scores: np.ndarray, b: int, target: float = 0.1) -> np.ndarray:
    """The b positions with the smallest |score - target|, the farthest of them first."""
    return np.argsort(-np.abs(scores - target), kind="stable")[len(scores) - b :]


def deepfool_length(point: np.ndarray, scores: Scores) -> float:
    """Squared length of the image perturbation that changes the arg-max, at most 50 steps. Each step goes toward the
    *last* class, because the running minimum over the classes is never updated."""
    start, gradients = scores(point)
    current = int(start.argmax())
    last = len(start) - 1 if current != len(start) - 1 else len(start) - 2
    moved = np.zeros_like(point, dtype=np.float64)
    for _ in range(DEEPFOOL_STEPS):
        values, gradients = scores(point + moved)
        if int(values.argmax()) != current:
            break
        direction = gradients[last] - gradients[current]
        moved += abs(values[last] - values[current]) / (direction @ direction) * direction
    return float(moved @ moved)


def cosine_scores(weight: np.ndarray, bias: np.ndarray, prototypes: np.ndarray) -> Scores:
    """Scores of the authors' image branch: cosines of relu(W x + b) with unit prototypes (C, h), and their
    gradients in x."""

    def scores(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        before = weight.astype(np.float64) @ point + bias
        hidden = np.maximum(before, 0.0)
        length = np.linalg.norm(hidden)
        values = prototypes.astype(np.float64) @ (hidden / length)
        inner = (prototypes - np.outer(values, hidden / length)) / length
        return values, (inner * (before > 0)) @ weight

    return scores


def query_bank_similarity(bank: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(u, u): rows of ``test`` (texts by images) whose largest entry is the largest of some row of ``bank`` (labelled
    texts by images), divided by the column sums of the bank. The published method divides exponentials."""
    active = np.unique(bank.argmax(axis=1))
    hubs = np.isin(test.argmax(axis=1), active)
    out = test.copy()
    out[hubs] = test[hubs] / bank.sum(axis=0)
    return out


def query_bank_positions(bank: np.ndarray, test: np.ndarray, b: int) -> np.ndarray:
    """The b positions with the smallest normalised similarity to their own counterpart; the authors return these
    positions as if they were pool rows."""
    return _smallest(np.diag(query_bank_similarity(bank, test)), b)


def inter_modality_picks(image: np.ndarray, text: np.ndarray, ids: np.ndarray, b: int) -> np.ndarray:
    """The b smallest un-normalised inner products of a pair's own embeddings, (u, D) each."""
    return np.asarray(ids[_smallest(own_products(image, text), b)])


def own_products(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """h_v . h_t of each pair, (n,)."""
    return np.asarray(np.einsum("ij,ij->i", image, text))


def alfa_mixing(embeddings: np.ndarray, anchors: np.ndarray, gradients: np.ndarray, epsilon: float) -> np.ndarray:
    """ALFA-Mix's closed form, eps |z| / |g| * g / (z + 1e-8) with z = anchor - h; (n, D)."""
    z = anchors - embeddings
    ratio = np.linalg.norm(z, axis=1, keepdims=True) / np.linalg.norm(gradients, axis=1, keepdims=True)
    return np.asarray(epsilon * ratio * gradients / (z + 1e-8))


def _smallest(values: np.ndarray, b: int) -> np.ndarray:
    return np.argsort(values, kind="stable")[:b]
