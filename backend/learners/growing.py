"""One head after another on a growing set of labels, each for what the new labels cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from backend.blas_threads import one_thread_if
from backend.learners.head_problem import HeadProblem
from backend.learners.late_fusion import LateFusionHead
from backend.learners.targets import read_targets

# Directions with less than this part of the largest energy change no logit by more than rounding.
NEGLIGIBLE = 1e-12
# Below this many rows, more than one BLAS thread costs more than it gives on a busy machine.
SINGLE_THREAD_BELOW_ROWS = 1000


@dataclass(frozen=True)
class GramSpan:
    """Orthonormal coordinates of the span of n rows, from their Gram matrix alone.

    coordinates: (n, q); energy: (q,) sum of squares of each coordinate; mixing: (n, q), the basis is
    rows.T @ mixing (and is never built).
    """

    coordinates: np.ndarray
    energy: np.ndarray
    mixing: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray) -> GramSpan:
        """Coordinates of rows with this Gram matrix (n, n)."""
        energy, turn = eigh(gram, driver="evd", check_finite=False)
        kept = energy > NEGLIGIBLE * energy[-1]
        energy, turn = energy[kept], turn[:, kept]
        length = np.sqrt(energy)
        return cls(turn * length, energy, turn / length)


class GrowingLabels:
    """Fits ``LateFusionHead`` again and again on fixed rows of which more and more are labelled.

    Same objective and optimum as ``LateFusionHead.fit``, to the tolerance of the search. Inner products of labelled
    rows are computed once, the unimodal heads are fitted when somebody looks at them, and the temperature stays 1
    unless ``calibrated`` is called.
    Memory: the labelled rows in float64, and one n_labelled^2 matrix a modality.

    features: modality -> (n, D_m); seed: folds of the calibration.
    """

    def __init__(
        self,
        features: Mapping[str, np.ndarray],
        n_classes: int,
        *,
        multi_label: bool = False,
        inverse_regularization: float = 30.0,
        seed: int = 0,
    ) -> None:
        self._features = {name: features[name] for name in sorted(features)}
        self._problem = (n_classes, multi_label, inverse_regularization)
        self._seed = seed
        self._known = np.empty(0, dtype=np.int64)
        self._blocks: dict[str, np.ndarray] = {
            name: np.empty((0, matrix.shape[1])) for name, matrix in self._features.items()
        }
        self._grams: dict[str, np.ndarray] = {name: np.empty((0, 0)) for name in self._features}
        # What the last head of each set of modalities found, where the next search begins.
        self._found: dict[tuple[str, ...], tuple[dict[str, np.ndarray], np.ndarray]] = {}

    def fit(self, labels: np.ndarray) -> LateFusionHead:
        """Head on all labelled rows; labels as in ``LateFusionHead.fit``: -1, or a row of -1, is unlabelled.

        Raises LabelsInvalid.
        """
        order, problem, seen = self._training(labels)
        names = tuple(self._features)
        fused, bias = self._solve(order, problem, names)
        return LateFusionHead(
            fused=fused,
            unimodal=_Lazy(names, lambda name: self._solve(order, problem, (name,))[0][name]),
            fused_bias=bias,
            unimodal_bias=_Lazy(names, lambda name: self._solve(order, problem, (name,))[1]),
            seen=seen,
            temperature=1.0,
            multi_label=problem.multi_label,
            inverse_regularization=problem.inverse_regularization,
        )

    def calibrated(self, head: LateFusionHead, labels: np.ndarray) -> LateFusionHead:
        """The head of ``fit(labels)`` with the temperature that ``LateFusionHead.fit`` would give it."""
        names = tuple(self._features)
        order, problem, _ = self._training(labels)
        span = self._span(order, problem, names)
        start = self._start(order, problem, names, span)
        if problem.trivial or start is None:
            return head
        return replace(head, temperature=problem.temperature(span, start, self._seed))

    def _training(self, labels: np.ndarray) -> tuple[np.ndarray, HeadProblem, np.ndarray]:
        """(which of the known rows train, on what, classes seen)."""
        n_classes, multi_label, strength = self._problem
        rows, targets, seen = read_targets(labels, None, n_classes, multi_label)
        self._admit(rows)
        # In the order of the rows, as every other way to fit a head has them: the folds depend on it.
        ascending = np.argsort(self._known)
        order = ascending[np.searchsorted(self._known[ascending], rows)]
        outputs = np.arange(n_classes) if multi_label else np.flatnonzero(seen)
        return order, HeadProblem(targets, outputs, n_classes, multi_label, float(strength)), seen

    def _admit(self, rows: np.ndarray) -> None:
        new = np.setdiff1d(rows, self._known)
        if not len(new):
            return
        for name, matrix in self._features.items():
            added = np.asarray(matrix[new], dtype=np.float64)
            across = self._blocks[name] @ added.T
            self._grams[name] = np.block([[self._grams[name], across], [across.T, added @ added.T]])
            self._blocks[name] = np.concatenate([self._blocks[name], added])
        self._known = np.concatenate([self._known, new])

    def _span(self, order: np.ndarray, problem: HeadProblem, names: tuple[str, ...]) -> GramSpan:
        cut = np.ix_(order, order)
        gram = np.sum([self._grams[name][cut] for name in names], axis=0)
        # The constant 1 carries the bias of multi-label heads.
        return GramSpan.of(gram + 1.0 if problem.multi_label else gram)

    def _start(
        self, order: np.ndarray, problem: HeadProblem, names: tuple[str, ...], span: GramSpan
    ) -> np.ndarray | None:
        if names not in self._found:
            return None
        weights, bias = self._found[names]
        logits = bias[:, None] + np.sum([weights[m] @ self._blocks[m][order].T for m in names], axis=0)
        return np.asarray(logits[problem.outputs] @ span.mixing)

    def _solve(
        self, order: np.ndarray, problem: HeadProblem, names: tuple[str, ...]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Weights (C, D_m) of each modality of the head on these, and its bias (C,)."""
        by_row = np.zeros((problem.n_classes, len(order)))
        if not problem.trivial:
            with one_thread_if(len(order) < SINGLE_THREAD_BELOW_ROWS):
                span = self._span(order, problem, names)
                reduced = problem.weights(span, self._start(order, problem, names, span))
                by_row[problem.outputs] = reduced @ span.mixing.T
        weights = {name: by_row @ self._blocks[name][order] for name in names}
        bias = np.asarray(by_row.sum(axis=1) if problem.multi_label else np.zeros(problem.n_classes))
        self._found[names] = weights, bias
        return weights, bias


class _Lazy(Mapping[str, np.ndarray]):
    """Arrays that are computed at the first look and kept."""

    def __init__(self, names: tuple[str, ...], compute: Callable[[str], np.ndarray]) -> None:
        self._names, self._compute = names, compute
        self._kept: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._kept:
            self._kept[name] = self._compute(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
