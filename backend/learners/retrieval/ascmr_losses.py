"""Losses of the ASCMR authors' retrieval network.

Source: ascmr.md section 1.2, which transcribes the authors' repository, commit 59e2e36.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.learners.retrieval.ascmr_network import Outputs

if TYPE_CHECKING:
    from torch import Tensor

TEXT_CLASS_WEIGHT = 0.5
AFFINITY_WEIGHT = 0.3
MMD_WEIGHT = 0.2
BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
# Below this squared distance the slope of its square root is no longer a number to train with.
LEAST_MMD = 1e-12


@dataclass(frozen=True)
class Losses:
    """Each term before its weight, and their weighted total."""

    classes: Tensor
    similarity: Tensor
    adversarial: Tensor
    mmd: Tensor
    affinity: Tensor
    total: Tensor


def losses(
    out: Outputs, image: Tensor, text: Tensor, labels: Tensor, *, alpha: float, beta: float, clip_shared: bool
) -> Losses:
    """total = L_cls + alpha L_sim + 0.3 L_A + beta L_gan + 0.2 L_mmd over b labelled pairs.

    image (b, d_v), text (b, d_t), labels (b, C) 0/1; clip_shared: S = min(number of shared labels, 1), so that the
    pair term stays a likelihood (ours; ascmr.md section 5 y); False is the authors' count.
    """
    import torch

    shared = labels @ labels.T
    if clip_shared:
        shared = shared.clamp(max=1.0)
    classes = _distance(out.image_scores, labels) + TEXT_CLASS_WEIGHT * _distance(out.text_scores, labels)
    similarity = _similarity(out.image, out.text, shared)
    adversarial = (
        _cross_entropy(out.real_image, 1)
        + _cross_entropy(out.fake_image, 0)
        + _cross_entropy(out.fake_text, 1)
        + _cross_entropy(out.real_text, 0)
    )
    meant = labels @ out.prototypes
    discrepancy = _root_mmd(_joined(out.image, image), _joined(meant, image)) + _root_mmd(
        _joined(out.text, text), _joined(meant, text)
    )
    identity = torch.eye(len(out.affinity), dtype=out.affinity.dtype)
    affinity = (out.affinity - identity).abs().mean()
    total = classes + alpha * similarity + AFFINITY_WEIGHT * affinity + beta * adversarial + MMD_WEIGHT * discrepancy
    return Losses(classes, similarity, adversarial, discrepancy, affinity, total)


def _distance(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores - labels).norm(dim=1).mean()


def _similarity(image: Tensor, text: Tensor, shared: Tensor) -> Tensor:
    from torch.nn.functional import normalize, softplus

    one, other = normalize(image, dim=1), normalize(text, dim=1)
    halves = (one @ one.T / 2.0, one @ other.T / 2.0, other @ other.T / 2.0)
    total = softplus(halves[0]) - shared * halves[0]
    for half in halves[1:]:
        total = total + softplus(half) - shared * half
    return total.mean()


def _cross_entropy(logits: Tensor, kind: int) -> Tensor:
    return -logits.log_softmax(dim=1)[:, kind].mean()


def _joined(left: Tensor, right: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(torch.cat([left, right], dim=1), dim=1)


def _root_mmd(one: Tensor, other: Tensor) -> Tensor:
    """Square root of the biased squared MMD with a sum of Gaussian kernels."""
    squared = _kernel(one, one).mean() + _kernel(other, other).mean() - 2.0 * _kernel(one, other).mean()
    return squared.clamp(min=LEAST_MMD).sqrt()


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    import torch

    squared = (one * one).sum(dim=1)[:, None] + (other * other).sum(dim=1)[None, :] - 2.0 * (one @ other.T)
    squared = squared.clamp(min=0.0)
    total = torch.zeros_like(squared)
    for width in BANDWIDTHS:
        total = total + (-squared / (2.0 * width * width)).exp()
    return total
