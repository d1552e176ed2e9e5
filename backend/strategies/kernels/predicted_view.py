"""A view in which records are also far apart when the head tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.strategies.kernels.views import View


@dataclass(frozen=True)
class PredictedView:
    """Rows [z | sqrt(weight p)]: squared distances are D2(i, j) + weight H2(i, j), H2 = |sqrt(p_i) - sqrt(p_j)|^2.

    H2 is twice the squared Hellinger distance of the two predictions: 0 where they agree, 2 where no class is
    likely in both. probabilities: (n, C), rows that sum to 1; only the rows asked for are read. Ours.
    """

    view: View
    probabilities: np.ndarray
    weight: float

    def __len__(self) -> int:
        return len(self.view)

    def rows(self, indices: np.ndarray | slice) -> np.ndarray:
        """[z | sqrt(weight p)] of some rows, float32."""
        predicted = np.sqrt(self.weight * np.asarray(self.probabilities[indices], dtype=np.float32))
        return np.concatenate([self.view.rows(indices), predicted], axis=1)
