"""Canonical directions of paired rows: the joint space that a few closed steps find, without any search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh, svd

# Times the mean variance of a direction: added to every variance, so that directions seen by chance count little.
SHRINKAGE = 1.0
NEGLIGIBLE = 1e-10


def canonical_weights(
    sources: Sequence[tuple[np.ndarray, np.ndarray]], width: int, shrinkage: float = SHRINKAGE
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D_image, width) and (D_text, width) float32 of the leading canonical directions.

    Each column is scaled by the square root of its canonical correlation, so that a cosine of projected rows trusts
    a direction as far as the pairs agree along it; columns beyond the rank are zero. Both matrices have entries of
    mean square 1 / width.
    sources: sets of pairs, image rows (p, D_image) and text rows (p, D_text). Every set is centred by itself, brought
    to the row length of the first and counts the same, however many its pairs.

    Source: Hotelling 1936; ridge: Vinod 1976. Weighting by the root of the correlation and several sets of equal
    weight are ours, chosen by recall on sets that were not trained on.
    """
    images, texts = zip(*sources, strict=True)
    rows = [_pooled(blocks) for blocks in (images, texts)]
    (turn_x, x), (turn_y, y) = (_whitened(block, shrinkage) for block in rows)
    if not (x.size and y.size):
        return _sized(np.zeros((images[0].shape[1], 0)), width), _sized(np.zeros((texts[0].shape[1], 0)), width)
    left, correlation, right = svd(x.T @ y, full_matrices=False, check_finite=False)
    kept = min(width, int((correlation > NEGLIGIBLE).sum()))
    scaled = np.sqrt(correlation[:kept])
    image, text = turn_x @ (left[:, :kept] * scaled), turn_y @ (right[:kept].T * scaled)
    # A direction and its opposite serve alike, and which one comes out hangs on the machine: choose.
    sign = np.sign(image[np.abs(image).argmax(axis=0), np.arange(kept)])
    return _sized(image * sign, width), _sized(text * sign, width)


def _pooled(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """All rows in float64, centred by set, each set with mean square length 1 over all its rows together."""
    pooled = []
    for block in blocks:
        centred = np.asarray(block, dtype=np.float64) - np.mean(block, axis=0, dtype=np.float64)
        total = np.sqrt((centred * centred).sum())
        pooled.append(centred / total if total > 0 else centred)
    return np.concatenate(pooled)


def _whitened(rows: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """(turn (D, q), rows @ turn (n, q)) with turn = V (E + shrinkage * trace / D)^(-1/2) in the span of the rows."""
    n, dim = rows.shape
    if n < dim:
        energy, outer = eigh(rows @ rows.T, check_finite=False)
    else:
        energy, axes = eigh(rows.T @ rows, check_finite=False)
    kept = energy > max(NEGLIGIBLE * float(energy[-1]), float(np.finfo(np.float64).tiny))
    energy = energy[kept]
    axes = rows.T @ (outer[:, kept] / np.sqrt(energy)) if n < dim else axes[:, kept]
    turn = axes / np.sqrt(energy + shrinkage * energy.sum() / dim)
    return turn, rows @ turn


def _sized(weights: np.ndarray, width: int) -> np.ndarray:
    """(D, width) float32, zero columns added, scaled to a mean square entry of 1 / width."""
    full = np.zeros((len(weights), width))
    full[:, : weights.shape[1]] = weights
    size = np.sqrt((full * full).mean() * width)
    return (full / size if size > 0 else full).astype(np.float32)
