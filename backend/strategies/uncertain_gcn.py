"""UncertainGCN: the records that a graph network finds least settled between labelled and unlabelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.base import LabelledStrategy, option
from backend.strategies.kernels.graph_network import CosineGraph, GraphTrainer, Network, Outcome, shortened
from backend.strategies.kernels.representatives import unit_length
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool

F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class GraphStrategy(LabelledStrategy):
    """What the two graph strategies share: the options of the network, and the network trained on the pool."""

    subset: int = option(10_000, "unlabelled records in the graph (4 a pick where that is more)", low=100)
    steps: int = option(200, "training steps on the whole graph", low=1, high=10_000)
    hidden: int = option(128, "hidden units", low=1, high=4096)
    components: int = option(0, "principal directions of the features that are kept; 0: all", low=0, high=100_000)

    def _settled(self, pool: Pool, count: int, rng: np.random.Generator) -> tuple[np.ndarray, Outcome]:
        """(row indices of the nodes, ascending; what the trained network says of them)."""
        most = max(self.subset, 4 * count)
        parts = [np.flatnonzero(pool.labelled), pool.unlabelled]
        nodes = np.sort(np.concatenate([p if len(p) <= most else rng.choice(p, most, replace=False) for p in parts]))
        rows = shortened(unit_length(UnitView(pool.features).rows(nodes)), self.components)
        trainer = GraphTrainer(CosineGraph.of(rows), pool.labelled[nodes])
        network = trainer.train(Network.drawn(rows.shape[1], self.hidden, rng, F32), self.steps, rng)
        return nodes, trainer.outcome(network)


@dataclass(frozen=True)
class UncertainGcn(GraphStrategy):
    """A two-layer graph network learns to tell labelled from unlabelled records; picks scores nearest ``target``.

    Nodes are a uniform sample of ``subset`` unlabelled records, as in the paper, and the labelled ones (a sample of
    as many at most); edges are cosines of the concatenated features. Trained from scratch each time. It looks at
    features only, never at labels or a head, so it is the same for several labels a record. Records outside the
    sample rank behind those in it, in random order. ``components`` shortens long features to their principal
    directions (ours), which a step's time is proportional to.

    Source: Caramalau, Bhattarai and Kim, Sequential Graph Convolutional Network for Active Learning, CVPR 2021,
    arXiv 2006.10219; constants as in the BMMAL authors' code, bmmal.md section 3. Never n x n, see
    ``kernels.graph_network``.
    """

    name: ClassVar[str] = "uncertain_gcn"
    title: ClassVar[str] = "UncertainGCN"
    paper: ClassVar[str] = "Caramalau et al., CVPR 2021, arXiv 2006.10219"
    needs: ClassVar[frozenset[str]] = frozenset()
    complexity: ClassVar[str] = "O(n + steps s D h) time, O(n + s D) memory, s = nodes, h hidden units"

    target: float = option(0.1, "score looked for: 0 unlike anything labelled, 1 like it", low=0.0, high=1.0)

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        nodes, out = self._settled(pool, count, rng)
        free = ~pool.labelled[nodes]
        off = np.abs(out.scores[free] - self.target)
        order = np.argsort(off, kind="stable")[:count]
        utilities = -2.0 - rng.random(len(pool))
        utilities[nodes[free]] = -off
        return nodes[free][order], utilities, {"score": out.scores[free][order]}
