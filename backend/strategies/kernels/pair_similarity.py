"""How alike the two sides of a pair are, in a space that image and text share; read in chunks."""

from __future__ import annotations

import numpy as np

from backend.strategies.kernels.linear_scores import row_chunks


def present_rows(matrix: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows are not all zero."""
    out = np.zeros(len(matrix), dtype=bool)
    for part in row_chunks(len(matrix)):
        out[part] = (matrix[part] != 0).any(axis=1)
    return out


def pair_cosines(image: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(product of the unit rows of each pair (n,) float64, whether both sides are there (n,) bool)."""
    out = np.empty(len(image))
    for part in row_chunks(len(image)):
        left, right = (np.asarray(matrix[part], dtype=np.float32) for matrix in (image, text))
        out[part] = np.einsum("ij,ij->i", left, right)
    return out, present_rows(image) & present_rows(text)


def at_median(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The values, and the median of the known ones where nothing is known (0 if nowhere)."""
    return np.where(known, values, np.median(values[known]) if known.any() else 0.0)
