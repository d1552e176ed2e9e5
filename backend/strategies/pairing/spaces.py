"""Spaces that distances between items of one modality are taken in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.half_precision import single
from backend.strategies.kernels.representatives import unit_length
from backend.strategies.pairing.pairs import Pairs

CHUNK_ROWS = 8192
SPACES = ("joint", "unimodal", "both")
DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True)
class Space:
    """Rows of one modality, a ``View`` whose Euclidean distance gives the distance wanted.

    cosine: rows of length 1, so that |x - y|^2 / 2 = 1 - <x, y>; else rows as they are. Several matrices are put
    side by side and scaled by 1 / sqrt(their number): then the cosine, or the squared distance, is the mean of
    theirs (ours; "@cat" of unaligned.md section 8).
    """

    matrices: tuple[np.ndarray, ...]
    cosine: bool = True

    @classmethod
    def of(cls, pairs: Pairs, modality: str, space: str, distance: str) -> Space:
        """The space of an option's names, see SPACES and DISTANCES."""
        sources = {
            "joint": (pairs.joint[modality],),
            "unimodal": (pairs.features[modality],),
            "both": (pairs.features[modality], pairs.joint[modality]),
        }
        return cls(sources[space], distance == "cosine")

    def __len__(self) -> int:
        return len(self.matrices[0])

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """Vectors of some rows, float32."""
        blocks = [single(matrix[indices]) for matrix in self.matrices]
        if self.cosine:
            blocks = [unit_length(block) for block in blocks]
        if len(blocks) == 1:
            return blocks[0]
        scale = np.float32(1.0 / np.sqrt(len(blocks)))
        return np.concatenate([block * scale for block in blocks], axis=1)

    def distance(self, squared: np.ndarray | float) -> np.ndarray:
        """The distance wanted, from squared Euclidean ones."""
        squared = np.asarray(squared, dtype=np.float64)
        return squared / 2.0 if self.cosine else np.sqrt(squared)

    def to_mean(self, present: np.ndarray) -> np.ndarray:
        """(n,) float64 distance of each row to the mean direction of the ``present`` ones (Euclidean: to their mean).

        Two passes. Source: unaligned.md section 2, cold start.
        """
        total, n = np.zeros(self.rows(slice(0, 1)).shape[1]), len(self)
        for begin in range(0, n, CHUNK_ROWS):
            part = slice(begin, min(begin + CHUNK_ROWS, n))
            total += self.rows(part)[present[part]].sum(axis=0, dtype=np.float64)
        mean = total / max(int(present.sum()), 1)
        length = float(np.sqrt(mean @ mean))
        mean = mean / length if self.cosine and length > 0 else mean
        out = np.empty(n)
        for begin in range(0, n, CHUNK_ROWS):
            part = slice(begin, min(begin + CHUNK_ROWS, n))
            block = self.rows(part).astype(np.float64)
            if self.cosine:
                out[part] = 1.0 - np.einsum("ij,j->i", block, mean)
            else:
                block -= mean
                out[part] = np.sqrt(np.einsum("ij,ij->i", block, block))
        return out
