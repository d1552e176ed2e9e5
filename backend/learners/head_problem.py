"""What a linear head is fitted to, whatever coordinates its training rows are given in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.learners.calibration import fit_temperature
from backend.learners.logistic import Span, fit_weights


@dataclass(frozen=True)
class HeadProblem:
    """Targets of the training rows, shared by the fused head and the heads of one modality.

    targets: class positions (n,) among ``outputs``, or 0/1 (n, C); outputs: the classes that get weights.
    """

    targets: np.ndarray
    outputs: np.ndarray
    n_classes: int
    multi_label: bool
    inverse_regularization: float

    @property
    def trivial(self) -> bool:
        """No row, or a single class: every weight is zero."""
        return len(self.targets) == 0 or (not self.multi_label and len(self.outputs) < 2)

    def weights(self, span: Span, start: np.ndarray | None) -> np.ndarray:
        """Optimal weights (outputs, q) in the coordinates of ``span``, searched from ``start``."""
        return fit_weights(
            span,
            np.arange(len(self.targets)),
            self.targets,
            len(self.outputs),
            inverse_regularization=self.inverse_regularization,
            multi_label=self.multi_label,
            start=start,
        )

    def temperature(self, span: Span, weights: np.ndarray, seed: int) -> float:
        """Temperature from out-of-fold logits; the folds are fitted from ``weights``."""
        return fit_temperature(
            span,
            self.targets,
            len(self.outputs),
            inverse_regularization=self.inverse_regularization,
            multi_label=self.multi_label,
            start=weights,
            seed=seed,
        )
