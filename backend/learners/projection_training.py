"""The search for projections of paired rows: AdamW on a contrastive loss, pulled towards where it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from backend.blas_threads import one_thread_if
from backend.errors import InvalidOption
from backend.learners.contrastive import LARGEST_SCALE, ContrastiveLoss, KnownMatches, clip_loss, siglip_loss

Loss = Literal["clip", "siglip", "lit"]
LOSSES: tuple[Loss, ...] = ("clip", "siglip", "lit")
# Adam's means of the gradient and of its square; the second is CLIP's (arXiv 2103.00020, table 19).
MOMENTUM, SQUARES = 0.9, 0.98
SMALL = 1e-8
# The bias is a logit of size 5 to 10; log scale is of size 1.
BIAS_STEP = 10.0
# Below this many multiplications a projection of a batch, a second BLAS thread waits more than it works.
SINGLE_THREAD_BELOW = 100_000_000


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how far the search goes from its start.

    steps: batches seen at least; passes: how often each pair is seen at least; batch: pairs a batch at most, so that
    no matrix is larger than batch^2; rate: first step of a weight, relative to the root mean square of the start's
    (scale: absolute), falling to 0 along a cosine; decay: pull of the weights towards the start, times the rate a
    step. The defaults are ours: few and short steps kept more of a good start than a pull did (recall of held-out
    pairs of sets that the start had not seen).
    """

    steps: int = 100
    passes: int = 5
    batch: int = 512
    rate: float = 5e-3
    decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (("steps", self.steps, 1), ("passes", self.passes, 0), ("batch", self.batch, 2)):
            if value < least:
                raise InvalidOption(f"{name} is {value}; choose at least {least}")
        for name, number in (("rate", self.rate), ("decay", self.decay)):
            if not number >= 0:
                raise InvalidOption(f"{name} is {number}; choose 0 or more")


@dataclass(frozen=True)
class Towers:
    """What is trained: weights of both modalities (D_m, d) float32, log scale and bias of the similarities."""

    image: np.ndarray
    text: np.ndarray
    log_scale: float
    bias: float


def train(
    rows: tuple[np.ndarray, np.ndarray],
    matches: KnownMatches,
    start: Towers,
    *,
    loss: Loss,
    options: TrainingOptions,
    seed: int,
) -> Towers:
    """Towers after the batches of ``options``, from ``start``; deterministic in the seed and the order of the pairs.

    rows: (p, D_image) and (p, D_text) float32 rows of the pairs; matches: entries that are no negatives.
    "lit" holds the image weights still (LiT, arXiv 2111.07991).
    """
    parameters = [start.image.copy(), start.text.copy(), np.array([start.log_scale]), np.array([start.bias])]
    origin = (start.image, start.text)
    size = [*(float(np.sqrt(np.mean(w * w))) for w in origin), 1.0, BIAS_STEP]
    if loss == "siglip":
        first = np.arange(min(len(rows[0]), options.batch))
        parameters[3][0] = _balanced_bias([block[first] for block in rows], parameters, matches.masked(first))
    mean = [np.zeros_like(p) for p in parameters]
    square = [np.zeros_like(p) for p in parameters]
    held = {0} if loss == "lit" else set()
    parts = -(-len(rows[0]) // options.batch)
    steps = max(options.steps, options.passes * parts)
    batches = islice(_batches(len(rows[0]), parts, np.random.default_rng(seed)), steps)
    for step, batch in enumerate(batches, start=1):
        rate = options.rate * 0.5 * (1.0 + np.cos(np.pi * (step - 1) / steps))
        with one_thread_if(len(batch) * start.image.size < SINGLE_THREAD_BELOW):
            gradients = _gradients([block[batch] for block in rows], parameters, loss, matches.masked(batch))
        for i, gradient in enumerate(gradients):
            if i in held:
                continue
            _adam(parameters[i], gradient, mean[i], square[i], size[i] * rate, step)
            if i < 2 and options.decay:
                parameters[i] -= (rate * options.decay) * (parameters[i] - origin[i])
        parameters[2][0] = min(parameters[2][0], np.log(LARGEST_SCALE))
    return Towers(parameters[0], parameters[1], float(parameters[2][0]), float(parameters[3][0]))


def _adam(
    parameter: np.ndarray, gradient: np.ndarray, mean: np.ndarray, square: np.ndarray, rate: float, step: int
) -> None:
    """One step of Adam (Kingma and Ba, ICLR 2015, algorithm 1) in place; ``gradient`` is used up."""
    mean *= MOMENTUM
    mean += (1 - MOMENTUM) * gradient
    square *= SQUARES
    np.multiply(gradient, gradient, out=gradient)
    gradient *= 1 - SQUARES
    square += gradient
    np.multiply(square, 1 / (1 - SQUARES**step), out=gradient)
    np.sqrt(gradient, out=gradient)
    gradient += SMALL
    np.divide(mean, gradient, out=gradient)
    gradient *= rate / (1 - MOMENTUM**step)
    parameter -= gradient


def _batches(pairs: int, parts: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of each batch, without end: all pairs, or parts of nearly equal size, shuffled each time all were seen."""
    while True:
        yield from np.array_split(rng.permutation(pairs) if parts > 1 else np.arange(pairs), parts)


def _balanced_bias(rows: list[np.ndarray], parameters: list[np.ndarray], masked: np.ndarray | None) -> float:
    """The bias at which as many pairs are expected to match as do: its optimum while nothing else moves.

    SigLIP's own -10 belongs to batches of 32,000 pairs. In small ones the negatives would hardly be felt, and all
    rows would be drawn together. Ours.
    """
    (image, _), (text, _) = (_unit(block @ weights) for block, weights in zip(rows, parameters[:2], strict=True))
    logits = min(float(np.exp(parameters[2][0])), LARGEST_SCALE) * np.asarray(image @ text.T, dtype=np.float64)
    counted = logits[~masked] if masked is not None else logits.ravel()
    reach = float(np.abs(logits).max()) + np.log(len(logits)) + 1.0
    # One pair alone has no negative: everything matches, and no finite bias says so.
    if len(counted) <= len(logits):
        return reach
    return float(brentq(lambda bias: expit(counted + bias).sum() - len(logits), -reach, reach))


def _unit(projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.sqrt((projected * projected).sum(axis=1, keepdims=True)) + np.float32(SMALL)
    return projected / length, length


def _gradients(
    rows: list[np.ndarray], parameters: list[np.ndarray], loss: Loss, masked: np.ndarray | None
) -> list[np.ndarray]:
    (units, lengths) = zip(
        *(_unit(block @ weights) for block, weights in zip(rows, parameters[:2], strict=True)), strict=True
    )
    scale = min(float(np.exp(parameters[2][0])), LARGEST_SCALE)
    found: ContrastiveLoss
    if loss == "siglip":
        found = siglip_loss(units[0], units[1], scale, float(parameters[3][0]), masked)
    else:
        found = clip_loss(units[0], units[1], scale, masked)
    gradients = []
    for block, unit, length, gradient in zip(rows, units, lengths, (found.image, found.text), strict=True):
        # A row of unit length only turns: the part of the gradient along it has no effect.
        turning = (gradient - unit * (gradient * unit).sum(axis=1, keepdims=True)) / length
        gradients.append(block.T @ turning)
    return [*gradients, np.array([found.log_scale]), np.array([found.bias])]
