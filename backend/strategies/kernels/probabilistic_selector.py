"""The selector of ASCMR: a small network that turns the embeddings of a pair into two Gaussians.

It learns from which image belongs to which text, never from labels, anew in each round. Torch is imported where it is
used. Source: ascmr.md sections 2.2 and 2.4 ([NOTE]) in the formulation of section 5, which is [OURS]: attention to
fixed anchors instead of batch mates, a variance that cannot be 0, a tempered match probability. ``form="note"`` keeps
the noted formulas. Of ours besides: embeddings are stretched to a mean square of 1 a coordinate, the loss is taken in
both means (matched, mismatched) and not over all B^2 pairs, of which the matched are a vanishing part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.strategies.kernels.gaussian_match import CERTAIN, Gaussians
from backend.strategies.kernels.kmeans import kmeans
from backend.strategies.kernels.linear_scores import row_chunks

MODALITIES = ("image", "text")
LAYER_NORM_EPS = 1e-5
# Lloyd rounds for the anchors: they are a grid to look at, not clusters.
ANCHOR_ROUNDS = 8
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class SelectorSettings:
    """form: "clean" or "note"; steps: Adam steps at most, each on ``batch`` pairs, at most ``epochs`` times through
    the pairs; sample_rows: pairs learned from at most, drawn uniformly; anchors: most of them (M); floor: least
    variance; temper: T of the match probability in the loss; divergence: weight of L_KL."""

    temper: float
    divergence: float
    form: str = "clean"
    steps: int = 200
    epochs: int = 10
    batch: int = 32
    rate: float = 1e-3
    sample_rows: int = 20_000
    anchors: int = 256
    floor: float = 1e-2


@dataclass(frozen=True)
class Selector:
    """weights: modality -> name -> array; contexts: modality -> (M, D) anchors, None where batch mates attend."""

    settings: SelectorSettings
    weights: Mapping[str, Mapping[str, np.ndarray]]
    contexts: Mapping[str, np.ndarray | None]
    losses: tuple[float, ...] = field(default=())

    @classmethod
    def trained(
        cls, features: Mapping[str, np.ndarray], pairs: np.ndarray, settings: SelectorSettings, seed: int
    ) -> Selector:
        """Selector of the pairs in these rows of ``features`` (image and text, (n, D) each), ascending.

        With fewer than two pairs there is nothing to tell apart, and the initial weights stay. O(steps B^2 D) for the
        loss and O(steps B (M D + D^2)) for the heads. Same seed, same weights, on the same machine.
        """
        rng = np.random.default_rng(seed)
        kept = pairs
        if len(pairs) > settings.sample_rows:
            kept = np.sort(rng.choice(pairs, settings.sample_rows, replace=False))
        rows = {name: stretched(features[name][kept]) for name in MODALITIES}
        weights, contexts = {}, {}
        for name in MODALITIES:
            width = features[name].shape[1]
            weights[name] = _initial(width, rng)
            contexts[name] = _anchors(rows[name], width, settings, rng)
        if len(kept) < 2:
            return cls(settings, weights, contexts)
        fitted, losses = _fit(rows, weights, contexts, settings, rng)
        return cls(settings, fitted, contexts, losses)

    def gaussians(self, modality: str, embeddings: np.ndarray) -> Gaussians:
        """Gaussians of some embeddings (b, D) of a modality, float32. In the form "note" the rows see each other."""
        import torch

        context = self.contexts[modality]
        with torch.no_grad():
            mean, variance = _heads(
                torch.from_numpy(stretched(embeddings)),
                None if context is None else torch.from_numpy(context),
                {name: torch.from_numpy(value) for name, value in self.weights[modality].items()},
                self.settings,
            )
        return Gaussians(mean.numpy(), variance.numpy())

    def stream(self, features: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Gaussians, Gaussians]]:
        """(rows, image Gaussians, text Gaussians) of all records, chunk by chunk in order; nothing is kept."""
        size = CHUNK_ROWS if self.settings.form == "clean" else self.settings.batch
        for part in row_chunks(len(features["image"]), size):
            yield (
                part,
                self.gaussians("image", features["image"][part]),
                self.gaussians("text", features["text"][part]),
            )


def stretched(embeddings: np.ndarray) -> np.ndarray:
    """Unit rows times sqrt(D), float32, so that a coordinate is of the size of 1; zero rows stay (ours)."""
    rows = np.array(embeddings, dtype=np.float32)
    rows *= np.float32(np.sqrt(rows.shape[1]))
    return rows


def _initial(width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Xavier uniform matrices, zero biases, unit gain of the norm."""
    bound = np.sqrt(3.0 / width)
    names = ("query", "key", "value", "out", "mean", "spread")
    weights = {name: rng.uniform(-bound, bound, (width, width)).astype(np.float32) for name in names}
    zeros = np.zeros(width, dtype=np.float32)
    return {**weights, "mean_bias": zeros, "spread_bias": zeros, "gain": zeros + 1.0, "shift": zeros}


def _anchors(rows: np.ndarray, width: int, settings: SelectorSettings, rng: np.random.Generator) -> np.ndarray | None:
    if settings.form == "note":
        return None
    if not len(rows):
        return np.zeros((1, width), dtype=np.float32)
    return kmeans(rows, min(settings.anchors, len(rows)), rng, rounds=ANCHOR_ROUNDS).centroids.astype(np.float32)


def _heads(rows: Any, context: Any, weights: Mapping[str, Any], settings: SelectorSettings) -> tuple[Any, Any]:
    """mu = LN(h + sigmoid(F_mu a)), Sigma = softplus(F_s a + h) + floor, a = attention of h to the anchors; torch.
    "note": the batch attends to itself, Sigma = max(relu(h + F_s a), floor)."""
    import torch
    from torch.nn import functional

    others = rows if context is None else context
    width = rows.shape[1]
    looks = torch.softmax((rows @ weights["query"]) @ (others @ weights["key"]).T / width**0.5, dim=1)
    attended = looks @ ((others @ weights["value"]) @ weights["out"])
    mean = rows + torch.sigmoid(attended @ weights["mean"] + weights["mean_bias"])
    mean = functional.layer_norm(mean, (width,), weights["gain"], weights["shift"], LAYER_NORM_EPS)
    spread = attended @ weights["spread"] + weights["spread_bias"] + rows
    if settings.form == "note":
        return mean, torch.relu(spread).clamp_min(settings.floor)
    return mean, functional.softplus(spread) + settings.floor


def _fit(
    rows: Mapping[str, np.ndarray],
    weights: Mapping[str, Mapping[str, np.ndarray]],
    contexts: Mapping[str, np.ndarray | None],
    settings: SelectorSettings,
    rng: np.random.Generator,
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[float, ...]]:
    import torch

    inputs = {name: torch.from_numpy(rows[name]) for name in MODALITIES}
    context = {name: None if c is None else torch.from_numpy(c) for name, c in contexts.items()}
    # One vector of all weights: an Adam step is then a handful of operations, whatever their number.
    joined = np.concatenate([w.ravel() for name in MODALITIES for w in weights[name].values()])
    vector = torch.from_numpy(joined).requires_grad_()
    update = _adam(vector.detach(), settings.rate)
    losses = []
    for batch in _batches(len(rows["image"]), settings, rng):
        picked = torch.from_numpy(batch)
        learned = _split(vector, weights)
        parts = [_heads(inputs[name][picked], context[name], learned[name], settings) for name in MODALITIES]
        loss = _loss(parts[0], parts[1], settings)
        update(torch.autograd.grad(loss, vector)[0])
        losses.append(loss.item())
    fitted = _split(vector.detach(), weights)
    return {m: {k: w.numpy() for k, w in part.items()} for m, part in fitted.items()}, tuple(losses)


def _split(vector: Any, like: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Views of a vector in the shapes of ``like``; torch."""
    out: dict[str, dict[str, Any]] = {}
    begin = 0
    for name in MODALITIES:
        out[name] = {}
        for key, weight in like[name].items():
            out[name][key] = vector[begin : begin + weight.size].view(weight.shape)
            begin += weight.size
    return out


def _adam(values: Any, rate: float) -> Callable[[Any], None]:
    """Adam in place on a torch vector (Kingma and Ba, ICLR 2015; beta 0.9 and 0.999, epsilon 1e-8). Ours is a few
    lines, that of torch takes seconds to be imported."""
    first, second = values.clone().zero_(), values.clone().zero_()
    count = 0

    def update(gradient: Any) -> None:
        nonlocal count
        count += 1
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient * gradient, 0.001)
        step = (second / (1.0 - 0.999**count)).sqrt_().add_(1e-8)
        values.addcdiv_(first, step, value=-rate / (1.0 - 0.9**count))

    return update


def _batches(n: int, settings: SelectorSettings, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shuffled batches of two pairs or more."""
    per_epoch = max(n // settings.batch, 1)
    for step in range(min(settings.steps, settings.epochs * per_epoch)):
        if step % per_epoch == 0:
            order = rng.permutation(n)
        begin = step % per_epoch * settings.batch
        yield order[begin : begin + settings.batch]


def _loss(image: tuple[Any, Any], text: tuple[Any, Any], settings: SelectorSettings) -> Any:
    """Mean over matched pairs of -ln p_T, plus mean over the others of -ln(1 - p_T), plus divergence x mean of L_KL;
    torch."""
    import torch

    log_p = _log_match_table(image, text) / settings.temper
    size = len(log_p)
    matched = torch.eye(size, dtype=torch.bool)
    off = torch.log(-torch.expm1(log_p.clamp_max(CERTAIN)))
    prior = sum((0.5 * (v + m**2 - 1.0 - torch.log(v))).sum(dim=1).mean() for m, v in (image, text))
    return -log_p[matched].mean() - off[~matched].mean() + settings.divergence * prior


def _log_match_table(image: tuple[Any, Any], text: tuple[Any, Any]) -> Any:
    """``gaussian_match.log_match_table`` with gradients; B x B x D numbers."""
    import torch

    (mean_v, var_v), (mean_t, var_t) = image, text
    middle = 0.5 * (var_v[:, None] + var_t[None])
    apart = (mean_v[:, None] - mean_t[None]) ** 2 / middle
    own = 0.25 * (torch.log(var_v).sum(dim=1)[:, None] + torch.log(var_t).sum(dim=1)[None])
    return (own - (0.125 * apart + 0.5 * torch.log(middle)).sum(dim=2)).clamp_max(0.0)
