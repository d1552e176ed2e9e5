"""CoreGCN: k-center on what a graph network makes of the records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backend.strategies.kernels.graph_network import core_features
from backend.strategies.kernels.kcenter import lazy_k_center
from backend.strategies.kernels.views import UnitView
from backend.strategies.pool import Pool
from backend.strategies.uncertain_gcn import GraphStrategy


@dataclass(frozen=True)
class CoreGcn(GraphStrategy):
    """Greedy k-center on [hidden layer | logit] of the network of ``uncertain_gcn``, labelled nodes being centres.

    Each pick is the node farthest from all labelled and picked ones. Nodes, edges and training as in
    ``uncertain_gcn``. Reserve: by a bound of the distance left; records outside the graph come last, in random order.

    Source: Caramalau, Bhattarai and Kim, Sequential Graph Convolutional Network for Active Learning, CVPR 2021,
    arXiv 2006.10219; constants as in the BMMAL authors' code, bmmal.md section 3.
    """

    name: ClassVar[str] = "coregcn"
    title: ClassVar[str] = "CoreGCN"
    paper: ClassVar[str] = "Caramalau et al., CVPR 2021, arXiv 2006.10219"
    needs: ClassVar[frozenset[str]] = frozenset()
    complexity: ClassVar[str] = "O(n + s (steps D h + k h)) time, O(n + s D) memory, s = nodes, h hidden units"

    def _pick(
        self, pool: Pool, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        nodes, out = self._settled(pool, count, rng)
        known = pool.labelled[nodes]
        found = lazy_k_center(UnitView({"core": core_features(out)}), count, np.flatnonzero(known), ~known)
        utilities = -2.0 - rng.random(len(pool))
        utilities[nodes] = found.bounds
        return nodes[found.picks], utilities, {"radius": found.radii}
