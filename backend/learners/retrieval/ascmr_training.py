"""Training the ASCMR authors' retrieval network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backend.errors import RetrievalTrainingFailed
from backend.learners.retrieval.ascmr_losses import losses
from backend.learners.retrieval.ascmr_network import NetworkShape, branch, forward, initial_weights, prototypes
from backend.learners.retrieval.scores import two_way_score

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (0.5, 0.999)
# Fewer held-out pairs than this cannot tell one epoch from the next.
FEWEST_HELD_OUT = 10


@dataclass(frozen=True)
class TrainingPlan:
    """Weights of the losses, optimiser and end of training; see ``AscmrOptions``."""

    alpha: float
    beta: float
    learning_rate: float
    epochs: int
    batch: int
    patience: int
    held_out: float
    clip_shared: bool


@dataclass(frozen=True)
class Trained:
    """weights: the best epoch's, float32; prototypes: (C, D) unit rows; held_out: rows that did not train, none where
    there were too few; epochs: that were trained, the ones after the best included."""

    weights: dict[str, np.ndarray]
    prototypes: np.ndarray
    held_out: np.ndarray
    epochs: int


def train(
    shape: NetworkShape,
    blocks: Mapping[str, np.ndarray],
    labels: np.ndarray,
    words: np.ndarray,
    graph: np.ndarray,
    plan: TrainingPlan,
    start: Mapping[str, np.ndarray] | None,
    seed: int,
) -> Trained:
    """Adam on mini-batches until ``patience`` epochs brought nothing better, then the best epoch's weights.

    Better is a higher mean mAP@all on the held-out pairs, or with too few of them a lower training loss; the authors
    look at the test set there. blocks: "image" and "text" -> (n, D_m) float32; labels: (n, C); words: (C, w);
    graph: (C, C) normalised. Raises RetrievalTrainingFailed when the loss is no number.
    Source: ascmr.md section 4; the criterion and restoring the best weights are ours.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    fresh = initial_weights(shape, generator)
    if start is not None:
        fresh = {name: torch.from_numpy(np.array(start[name])) for name in fresh}
    run = _Run(blocks, labels, words, graph, plan, seed)
    weights = {name: tensor.requires_grad_() for name, tensor in fresh.items()}
    # With few pairs most of a step is Adam over the weights, which the fused one does in one pass.
    adam = torch.optim.Adam(weights.values(), lr=plan.learning_rate, betas=BETAS, fused=True)
    kept, best, since, epoch = _copied(weights), -np.inf, 0, 0
    while epoch < plan.epochs and len(run.training) and since < plan.patience:
        epoch += 1
        loss = 0.0
        for rows in torch.randperm(len(run.training), generator=generator).split(plan.batch):
            adam.zero_grad()
            total = run.loss(weights, rows)
            total.backward()
            adam.step()
            loss += float(total.detach()) * len(rows)
        if not np.isfinite(loss):
            raise RetrievalTrainingFailed(
                f"loss is {loss} in epoch {epoch}; lower learning_rate ({plan.learning_rate}) or check the vectors"
            )
        value = run.quality(weights, loss)
        since += 1
        if value > best:
            kept, best, since = _copied(weights), value, 0
    with torch.no_grad():
        classes = prototypes(kept, run.words, run.graph)
    return Trained({name: tensor.numpy() for name, tensor in kept.items()}, classes.numpy(), run.held_out, epoch)


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


class _Run:
    """The tensors of one training, and which rows are held out."""

    def __init__(
        self,
        blocks: Mapping[str, np.ndarray],
        labels: np.ndarray,
        words: np.ndarray,
        graph: np.ndarray,
        plan: TrainingPlan,
        seed: int,
    ) -> None:
        import torch

        order = np.random.default_rng(seed).permutation(len(labels))
        count = int(plan.held_out * len(labels))
        if count < FEWEST_HELD_OUT or not labels[order[:count]].any():
            count = 0
        self.held_out, self.training = np.sort(order[:count]), np.sort(order[count:])
        self.words = torch.from_numpy(words.astype(np.float32))
        self.graph = torch.from_numpy(graph.astype(np.float32))
        self._plan, self._truth = plan, labels[self.held_out]
        tensors = {**blocks, "labels": labels.astype(np.float32)}
        self._fed = {name: torch.from_numpy(block[self.training]) for name, block in tensors.items()}
        self._asked = {name: torch.from_numpy(block[self.held_out]) for name, block in blocks.items()}

    def loss(self, weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Total loss of one mini-batch."""
        image, text, labels = (self._fed[name][rows] for name in ("image", "text", "labels"))
        out = forward(weights, image, text, self.words, self.graph)
        plan = self._plan
        return losses(out, image, text, labels, alpha=plan.alpha, beta=plan.beta, clip_shared=plan.clip_shared).total

    def quality(self, weights: Mapping[str, Tensor], loss: float) -> float:
        """Larger is better: mean mAP@all on the held-out pairs, or minus the loss without them."""
        import torch

        if not len(self.held_out):
            return -loss
        with torch.no_grad():
            rows = {name: branch(weights, block, name).numpy() for name, block in self._asked.items()}
        return float(np.nan_to_num(two_way_score(rows, self._truth).mean))
