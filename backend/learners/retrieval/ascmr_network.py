"""The ASCMR authors' retrieval network: two branches, a graph encoder of the labels, decoders, discriminators.

Weights are a plain mapping from the authors' state-dict names to tensors, so that a checkpoint of theirs can be put
in as it is. torch is imported by the functions that compute, never by importing this module.

Source: DAGNN (AAAI 2021) as in the ASCMR authors' repository, commit 59e2e36; ascmr.md section 1.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SLOPE = 0.2
NO_EDGE = -9e15
GAT_GAIN = 1.414
ENCODERS = ("gcn", "gat")


@dataclass(frozen=True)
class NetworkShape:
    """Numbers in the vectors of images, texts and label words, classes C, shared width D, graph layers, and the
    hidden numbers of the decoders towards text and image."""

    image: int
    text: int
    words: int
    classes: int
    width: int = 1024
    layers: int = 5
    encoder: str = "gcn"
    text_hidden: int = 512
    image_hidden: int = 2048

    def linear_maps(self) -> dict[str, tuple[int, int]]:
        """name -> (outputs, inputs) of every layer with a bias, torch layout."""
        maps = {
            "img_net.denseL1": (self.width, self.image),
            "text_net.denseL1": (self.width, self.text),
            "img2text_net.denseL1": (self.text_hidden, self.width),
            "img2text_net.denseL2": (self.text, self.text_hidden),
            "text2img_net.denseL1": (self.image_hidden, self.width),
            "text2img_net.denseL2": (self.image, self.image_hidden),
            "hypo": (self.width, self.layers * self.width),
        }
        for name, size in (("img", self.image), ("text", self.text)):
            steps = (size, max(size // 4, 1), max(size // 16, 1), 2)
            maps |= {f"{name}_md_net.denseL{i + 1}": (steps[i + 1], steps[i]) for i in range(3)}
        return maps

    def weight_names(self) -> list[str]:
        """Names of all trained weights, the authors'."""
        names = ["W1", "W2", *(f"{name}.{part}" for name in self.linear_maps() for part in ("weight", "bias"))]
        parts = ("W", "a") if self.encoder == "gat" else ("weight",)
        return names + [f"lrn_{layer}.{part}" for layer in range(self.layers) for part in parts]

    def graph_layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every graph layer, in x out layout."""
        return [(self.words if layer == 0 else self.width, self.width) for layer in range(self.layers)]


@dataclass(frozen=True)
class Outputs:
    """What one forward pass of b pairs gives.

    image, text: (b, D) not normalised; image_scores, text_scores: (b, C) cosines with the prototypes (C, D);
    text_from_image (b, d_t), image_from_text (b, d_v); affinity: (C, C), A of section 1.1; real_image, fake_image,
    real_text, fake_text: (b, 2) logits of the discriminators.
    """

    image: Tensor
    text: Tensor
    image_scores: Tensor
    text_scores: Tensor
    prototypes: Tensor
    affinity: Tensor
    text_from_image: Tensor
    image_from_text: Tensor
    real_image: Tensor
    fake_image: Tensor
    real_text: Tensor
    fake_text: Tensor


@dataclass(frozen=True)
class LabelGraph:
    """links: (C, C), 1[co_ij / n_j >= threshold] + I; normalised: D^-1/2 links^T D^-1/2, D the row sums of links."""

    links: np.ndarray
    normalised: np.ndarray

    @classmethod
    def of_counts(cls, together: np.ndarray, counts: np.ndarray, threshold: float) -> LabelGraph:
        """Graph of label co-occurrence counts (C, C) and class counts (C,); a class never counted has no link.

        Division is by column, as the authors' file of counts makes it: entry ij is the share of class j's pairs
        that have class i. A diagonal that passes the threshold makes 2 there.
        """
        counts = np.asarray(counts, dtype=np.float64).reshape(1, -1)
        share = np.divide(together, counts, out=np.zeros_like(together, dtype=np.float64), where=counts > 0)
        links = (share >= threshold).astype(np.float64) + np.eye(len(together))
        root = links.sum(axis=1) ** -0.5
        return cls(links, root[:, None] * links.T * root[None, :])

    @classmethod
    def of_labels(cls, labels: np.ndarray, threshold: float, *, smoothing: float = 1.0) -> LabelGraph:
        """Graph of the labelled pairs (n, C) 0/1, from (co_ij + smoothing) / (n_j + C smoothing) for i != j.

        The authors read counts of all training labels from a file, which tells an active learner labels it has not
        bought; smoothing keeps one chance meeting from becoming a link (ours; ascmr.md section 5 t).
        """
        labels = np.asarray(labels, dtype=np.float64)
        together, counts = labels.T @ labels + smoothing, labels.sum(axis=0) + smoothing * labels.shape[1]
        np.fill_diagonal(together, 0.0)
        return cls.of_counts(together, counts, threshold)


def initial_weights(shape: NetworkShape, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights before training: linear layers as torch makes them, graph layers as section 1.1, W1 and W2 within
    1 / sqrt(w) as those of golden file A are."""
    import torch

    def uniform(bound: float, *size: int) -> Tensor:
        return (torch.rand(*size, generator=generator) * 2.0 - 1.0) * bound

    def xavier(gain: float, rows: int, columns: int) -> Tensor:
        return uniform(gain * math.sqrt(6.0 / (rows + columns)), rows, columns)

    weights = {name: uniform(shape.words**-0.5, shape.words, shape.words) for name in ("W1", "W2")}
    for name, (outputs, inputs) in shape.linear_maps().items():
        weights[f"{name}.weight"] = uniform(inputs**-0.5, outputs, inputs)
        weights[f"{name}.bias"] = uniform(inputs**-0.5, outputs)
    for layer, (inputs, outputs) in enumerate(shape.graph_layers()):
        if shape.encoder == "gat":
            weights[f"lrn_{layer}.W"] = xavier(GAT_GAIN, inputs, outputs)
            weights[f"lrn_{layer}.a"] = xavier(GAT_GAIN, 2 * outputs, 1)
        else:
            weights[f"lrn_{layer}.weight"] = uniform(outputs**-0.5, inputs, outputs)
    return weights


def branch(weights: Mapping[str, Tensor], rows: Tensor, modality: str) -> Tensor:
    """(b, D): ReLU(W x + b) of the image or the text branch."""
    return _linear(weights, "img_net.denseL1" if modality == "image" else "text_net.denseL1", rows).relu()


def prototypes(weights: Mapping[str, Tensor], words: Tensor, graph: Tensor) -> Tensor:
    """(C, D) rows of length 1 from the label words (C, w) and the normalised graph (C, C)."""
    import torch

    hidden = words
    layers: list[Tensor] = []
    while f"lrn_{len(layers)}.weight" in weights or f"lrn_{len(layers)}.W" in weights:
        name = f"lrn_{len(layers)}"
        if f"{name}.weight" in weights:
            hidden = torch.nn.functional.leaky_relu(graph @ (hidden @ weights[f"{name}.weight"]), SLOPE)
        else:
            hidden = _attention(hidden @ weights[f"{name}.W"], weights[f"{name}.a"], graph)
        layers.append(hidden)
    return torch.nn.functional.normalize(_linear(weights, "hypo", torch.cat(layers, dim=1)), dim=1)


def forward(weights: Mapping[str, Tensor], image: Tensor, text: Tensor, words: Tensor, graph: Tensor) -> Outputs:
    """All outputs for b pairs: image (b, d_v), text (b, d_t), label words (C, w), normalised graph (C, C)."""
    from torch.nn.functional import leaky_relu, normalize

    seen, read = branch(weights, image, "image"), branch(weights, text, "text")
    classes = prototypes(weights, words, graph)
    told = leaky_relu(_linear(weights, "img2text_net.denseL1", seen), SLOPE)
    told = leaky_relu(_linear(weights, "img2text_net.denseL2", told), SLOPE)
    drawn = _linear(weights, "text2img_net.denseL1", read).relu()
    drawn = _linear(weights, "text2img_net.denseL2", drawn).relu()
    return Outputs(
        image=seen,
        text=read,
        image_scores=normalize(seen, dim=1) @ classes.T,
        text_scores=normalize(read, dim=1) @ classes.T,
        prototypes=classes,
        affinity=(words @ weights["W1"]) @ (words @ weights["W2"]).T / len(words),
        text_from_image=told,
        image_from_text=drawn,
        real_image=_discriminate(weights, "img_md_net", image),
        fake_image=_discriminate(weights, "img_md_net", drawn),
        real_text=_discriminate(weights, "text_md_net", text),
        fake_text=_discriminate(weights, "text_md_net", told),
    )


def _attention(rows: Tensor, direction: Tensor, graph: Tensor) -> Tensor:
    """Graph attention with one head (GAT layer of section 1.1)."""
    import torch

    width = rows.shape[1]
    pull = rows @ direction[:width] + (rows @ direction[width:]).T
    pull = torch.nn.functional.leaky_relu(pull, SLOPE)
    pull = torch.where(graph > 0, pull, torch.full_like(pull, NO_EDGE))
    return torch.nn.functional.elu(torch.softmax(pull, dim=1) @ rows)


def _discriminate(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    # Equal to the rows, with their gradient reversed: what made the rows learns to deceive.
    rows = 2.0 * rows.detach() - rows
    for layer in (1, 2, 3):
        rows = _linear(weights, f"{name}.denseL{layer}", rows)
    return rows


def _linear(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
