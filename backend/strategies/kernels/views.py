"""Views of the features that distances are taken in: as they are, or centred (label_efficiency.md, recipe step 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backend.half_precision import single, widen

CHUNK_ROWS = 8192
# A row this close to the mean has no direction left, only rounding; it becomes a zero row.
NEGLIGIBLE = 1e-5


class View(Protocol):
    """n vectors that are computed when asked for."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """[z_1 | ... | z_M] of some rows, float32 or better."""
        ...


@dataclass(frozen=True)
class UnitView:
    """The rows as they are stored, modalities in alphabetical order, one after the other; absent stays zero.

    This is the fused feature of bmmal.md section 3 (there of any length, here of unit length a modality).
    """

    features: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """[x_1 | ... | x_M] of some rows, float32; float64 where the features are."""
        blocks = [self.features[name][indices] for name in sorted(self.features)]
        out = np.empty((len(blocks[0]), sum(b.shape[1] for b in blocks)), np.result_type(np.float32, *blocks))
        begin = 0
        for block in blocks:
            widen(block, out[:, begin : begin + block.shape[1]])
            begin += block.shape[1]
        return out


def view_of(features: Mapping[str, np.ndarray], name: str) -> View:
    """ "unit" or "centred", the values of the option ``view`` of the strategies that look at distances."""
    return UnitView(features) if name == "unit" else CentredView.of(features)


@dataclass(frozen=True)
class CentredView:
    """z_m = (x - mu_m) / |x - mu_m| for x of unit length, mu_m the mean of the present rows; absent stays zero.

    Squared distances are D2(i, j) = sum over m of |z_im - z_jm|^2, between 0 and 4 M. Rows are computed on demand,
    so the view costs one mean vector a modality.
    """

    features: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, features: Mapping[str, np.ndarray], *, rows: np.ndarray | None = None) -> CentredView:
        """View whose means are taken over all rows, or over ``rows``; one pass, chunked."""
        ordered = {name: features[name] for name in sorted(features)}
        return cls(ordered, {name: _mean_direction(matrix, rows) for name, matrix in ordered.items()})

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """[z_1 | ... | z_M] of some rows, float32."""
        blocks = []
        for name, matrix in self.features.items():
            unit, present = _unit_rows(matrix[indices])
            unit -= self.means[name]
            unit[~present] = 0.0
            blocks.append(_unit_rows(unit, NEGLIGIBLE)[0])
        return np.concatenate(blocks, axis=1)

    def squared_distances(self, indices: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """D2 (b, a) float32 of some rows to rows of the view given as vectors."""
        return squared_euclidean(self.rows(indices), anchors)


def squared_euclidean(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|l_i - r_j|^2, (b, a), clipped at 0."""
    out = left @ right.T
    out *= -2.0
    out += np.einsum("ij,ij->i", left, left)[:, None]
    out += np.einsum("ij,ij->i", right, right)[None, :]
    return np.maximum(out, 0.0, out=out)


def _reciprocal_lengths(rows: np.ndarray, negligible: float) -> np.ndarray:
    """1 / |row|, 0 where the length is at most ``negligible``; float32."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    present = length > negligible
    return np.asarray(np.where(present, 1.0 / np.where(present, length, 1.0), 0.0), dtype=np.float32)


def _unit_rows(block: np.ndarray, negligible: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(rows of unit length in float32, which rows have a length above ``negligible``); the others become 0."""
    rows = single(block)
    scale = _reciprocal_lengths(rows, negligible)
    return rows * scale[:, None], scale > 0


def _mean_direction(matrix: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    total = np.zeros(matrix.shape[1])
    count = 0
    n = len(matrix) if rows is None else len(rows)
    for begin in range(0, n, CHUNK_ROWS):
        part = slice(begin, min(begin + CHUNK_ROWS, n))
        block = single(matrix[part if rows is None else rows[part]])
        scale = _reciprocal_lengths(block, 0.0)
        total += scale @ block
        count += int((scale > 0).sum())
    return (total / max(count, 1)).astype(np.float32)
