"""The graph network of UncertainGCN and CoreGCN, without ever holding the n x n graph.

The graph joins every two records by the cosine of their features: S = X X^T without its diagonal, and
A = S diag(1 / column sums) + I. A product A V = X (X^T (V / sums)) - ... costs O(n D) a column, so memory is O(n D).

Source: Caramalau, Bhattarai and Kim, Sequential Graph Convolutional Network for Active Learning, CVPR 2021,
arXiv 2006.10219, as the BMMAL authors' code runs it (bmmal.md section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.strategies.kernels.representatives import unit_length

# A column whose similarities sum to less than one neighbour's worth is not blown up: with cosines of either sign the
# sum can be nothing at all. The authors' features are non-negative and never come near; ours may.
LEAST_SUM = 1.0


@dataclass(frozen=True)
class CosineGraph:
    """A = S diag(1 / sums) + I for unit rows (n, D), zero rows having no neighbour; in the dtype of the rows."""

    rows: np.ndarray
    squares: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> CosineGraph:
        """Graph of rows that have length 1 or 0."""
        squares = np.einsum("ij,ij->i", rows, rows)
        return cls(rows, squares[:, None], np.maximum(rows @ rows.sum(axis=0) - squares, LEAST_SUM)[:, None])

    def _similar(self, columns: np.ndarray) -> np.ndarray:
        return self.rows @ (self.rows.T @ columns) - self.squares * columns

    def times(self, columns: np.ndarray) -> np.ndarray:
        """A @ columns, (n, c)."""
        return np.asarray(self._similar(columns / self.sums) + columns)

    def transposed_times(self, columns: np.ndarray) -> np.ndarray:
        """A.T @ columns, (n, c)."""
        return np.asarray(self._similar(columns) / self.sums + columns)


def shortened(rows: np.ndarray, components: int) -> np.ndarray:
    """Unit rows in the ``components`` directions that keep most of their squares, at length 1 again; 0: as they are.

    With as many directions as the rows have numbers all cosines stay. Memory: D x D and the result.
    """
    if not 0 < components < rows.shape[1]:
        return rows
    from scipy.linalg import eigh

    width = rows.shape[1]
    _, directions = eigh(rows.T @ rows, subset_by_index=(width - components, width - 1))
    return unit_length(rows @ directions)


@dataclass(frozen=True)
class Network:
    """H = relu(A X W1 + b1), score = sigmoid(A H w3 + b3): w1 (D, h), b1 (h,), w3 (h, 1), b3 (1,)."""

    w1: np.ndarray
    b1: np.ndarray
    w3: np.ndarray
    b3: np.ndarray

    @classmethod
    def drawn(cls, width: int, hidden: int, rng: np.random.Generator, dtype: np.dtype) -> Network:
        """Initial values uniform within 1 / sqrt(outputs), as the authors' layers."""

        def uniform(shape: tuple[int, ...]) -> np.ndarray:
            bound = 1.0 / np.sqrt(shape[-1])
            return rng.uniform(-bound, bound, shape).astype(dtype)

        return cls(uniform((width, hidden)), uniform((hidden,)), uniform((hidden, 1)), uniform((1,)))

    def arrays(self) -> list[np.ndarray]:
        """The four parameters."""
        return [self.w1, self.b1, self.w3, self.b3]


@dataclass(frozen=True)
class Outcome:
    """hidden (n, h), logits (n,) before the sigmoid, loss."""

    hidden: np.ndarray
    logits: np.ndarray
    loss: float

    @property
    def scores(self) -> np.ndarray:
        """sigmoid(logits): 1 looks labelled, 0 unlabelled."""
        from scipy.special import expit

        return np.asarray(expit(self.logits))


@dataclass(frozen=True)
class GraphTrainer:
    """Loss: -mean over labelled of log s - weight x mean over unlabelled of log(1 - s), with L2 decay in Adam."""

    graph: CosineGraph
    labelled: np.ndarray
    unlabelled_weight: float = 1.2
    dropout: float = 0.3
    rate: float = 1e-3
    decay: float = 5e-4

    def outcome(self, network: Network) -> Outcome:
        """The network without dropout."""
        return self._forward(network, self.graph.times(self.graph.rows), None)

    def train(self, network: Network, steps: int, rng: np.random.Generator) -> Network:
        """``steps`` full-graph Adam steps; dropout on the hidden layer. Memory: a few (n, h) and one (n, D) array."""
        spread = self.graph.times(self.graph.rows)
        update = _adam(network.arrays(), self.rate, self.decay)
        for _ in range(steps):
            mask = self._mask((len(spread), network.w1.shape[1]), rng, spread.dtype)
            out = self._forward(network, spread, mask)
            network = Network(*update(self._gradients(network, spread, mask, out)))
        return network

    def _mask(self, shape: tuple[int, int], rng: np.random.Generator, dtype: np.dtype) -> np.ndarray | None:
        if self.dropout == 0:
            return None
        kept = rng.random(shape, dtype=np.float32) >= self.dropout
        return kept.astype(dtype) / dtype.type(1.0 - self.dropout)

    def _forward(self, network: Network, spread: np.ndarray, mask: np.ndarray | None) -> Outcome:
        hidden = np.maximum(spread @ network.w1 + network.b1, 0.0)
        if mask is not None:
            hidden *= mask
        logits = (self.graph.times(hidden @ network.w3) + network.b3)[:, 0]
        known, unknown = logits[self.labelled], logits[~self.labelled]
        loss = _mean(np.logaddexp(0.0, -known)) + self.unlabelled_weight * _mean(np.logaddexp(0.0, unknown))
        return Outcome(hidden, logits, loss)

    def _gradients(
        self, network: Network, spread: np.ndarray, mask: np.ndarray | None, out: Outcome
    ) -> list[np.ndarray]:
        known = int(self.labelled.sum())
        pull = np.where(
            self.labelled,
            (out.scores - 1.0) / max(known, 1),
            self.unlabelled_weight * out.scores / max(len(self.labelled) - known, 1),
        ).astype(spread.dtype)[:, None]
        back = self.graph.transposed_times(pull)
        into = back * network.w3.T
        # Three times as fast as assigning zeros through an index.
        into *= out.hidden > 0
        if mask is not None:
            into *= mask
        return [spread.T @ into, into.sum(axis=0), out.hidden.T @ back, pull.sum(axis=0)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _adam(start: list[np.ndarray], rate: float, decay: float) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """Adam with L2 decay added to the gradient (Kingma and Ba, ICLR 2015; beta 0.9 and 0.999, epsilon 1e-8)."""
    values = [value.copy() for value in start]
    first, second = ([np.zeros_like(value) for value in start] for _ in range(2))
    count = 0

    def update(gradients: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal count
        count += 1
        for value, gradient, mean, square in zip(values, gradients, first, second, strict=True):
            full = gradient + decay * value
            mean += 0.1 * (full - mean)
            square += 0.001 * (full * full - square)
            step = np.sqrt(square) / np.sqrt(1.0 - 0.999**count) + 1e-8
            value -= rate / (1.0 - 0.9**count) * mean / step
        return [value.copy() for value in values]

    return update


def core_features(out: Outcome) -> np.ndarray:
    """[H | logit], (n, h + 1): where CoreGCN spreads its picks."""
    return np.concatenate([out.hidden, out.logits[:, None]], axis=1)
