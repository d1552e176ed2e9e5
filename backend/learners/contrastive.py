"""Contrastive losses of paired rows, with their gradients in closed form: no framework, any float type.

Entry (i, j) of a batch is image i beside text j; the true pairs are the diagonal. A pair of rows that is known to
fit, or not known to be a mistake, must not be pushed apart: such entries are *masked* and contribute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from backend.errors import FeaturesMismatch, PairsInvalid

# Radford et al., CLIP, arXiv 2103.00020, section 2.5: the scale is clipped so that no logit exceeds 100.
LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class ContrastiveLoss:
    """value, its gradients by the image rows (n, d) and the text rows (n, d), and by log scale and bias."""

    value: float
    image: np.ndarray
    text: np.ndarray
    log_scale: float
    bias: float


def clip_loss(image: np.ndarray, text: np.ndarray, scale: float, masked: np.ndarray | None = None) -> ContrastiveLoss:
    """Symmetric InfoNCE ``(CE(a S, I) + CE(a S^T, I)) / 2`` with S = image @ text.T and a = min(scale, 100).

    image, text: (n, d) rows, of any length; masked: (n, n) bool, entries left out of both softmaxes (the diagonal
    stays). Above the clamp the gradient by log scale is 0. LiT is this loss with the image side held still.
    Source: CLIP, arXiv 2103.00020, figure 3; LiT, arXiv 2111.07991. The mask is the task's own (unaligned.md, 2.2).
    Raises FeaturesMismatch.
    """
    similarities = _similarities(image, text, masked)
    n = len(similarities)
    used = min(scale, LARGEST_SCALE)
    logits = used * similarities
    if masked is not None:
        logits[masked & ~np.eye(n, dtype=bool)] = -np.inf
    residual = np.zeros_like(logits)
    value = 0.0
    for axis in (0, 1):
        top = logits.max(axis=axis, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(axis=axis, keepdims=True)
        value += float((np.log(total) + top).sum())
        shares /= total
        residual += shares
    diagonal = np.arange(n)
    value = value / 2 - float(logits[diagonal, diagonal].sum())
    residual /= 2
    residual[diagonal, diagonal] -= 1.0
    by_scale = float(np.vdot(residual, similarities)) * used / n if scale <= LARGEST_SCALE else 0.0
    residual *= used / n
    return ContrastiveLoss(value / n, residual @ text, residual.T @ image, by_scale, 0.0)


def siglip_loss(
    image: np.ndarray, text: np.ndarray, scale: float, bias: float, masked: np.ndarray | None = None
) -> ContrastiveLoss:
    """``-(1/n) sum_ij log sigmoid(z_ij (a s_ij + b))``, z = 1 on the diagonal and -1 off it, a = min(scale, 100).

    Arguments as in ``clip_loss``; masked entries are left out of the sum.
    Source: SigLIP, arXiv 2303.15343, equation 1 and algorithm 1; the clamp is unaligned.md, 2.2.
    Raises FeaturesMismatch.
    """
    similarities = _similarities(image, text, masked)
    n = len(similarities)
    used = min(scale, LARGEST_SCALE)
    logits = used * similarities + bias
    diagonal = np.arange(n)
    terms = np.logaddexp(0.0, logits)
    terms[diagonal, diagonal] -= logits[diagonal, diagonal]
    residual = expit(logits)
    residual[diagonal, diagonal] -= 1.0
    if masked is not None:
        left_out = masked & ~np.eye(n, dtype=bool)
        terms[left_out] = 0.0
        residual[left_out] = 0.0
    by_scale = float(np.vdot(residual, similarities)) * used / n if scale <= LARGEST_SCALE else 0.0
    by_bias = float(residual.sum()) / n
    residual *= used / n
    return ContrastiveLoss(float(terms.sum()) / n, residual @ text, residual.T @ image, by_scale, by_bias)


class KnownMatches:
    """Which image fits which text, by content, to find the entries of a batch that are no true negatives.

    Two pairs with the same image, or with the same text, mask each other; so do pairs whose crossing is itself a
    known pair (an answer "also fits"). Memory is linear in the number of pairs.

    image, text: (p,) numbers of the contents of each pair, equal where the contents are.
    """

    def __init__(self, image: np.ndarray, text: np.ndarray) -> None:
        if image.shape != text.shape or image.ndim != 1:
            raise PairsInvalid(
                f"pairs have {image.shape} images and {text.shape} texts; pass one number of each a pair"
            )
        self._image, self._text = (np.unique(side, return_inverse=True)[1].reshape(-1) for side in (image, text))
        shape = tuple(int(side.max(initial=-1)) + 1 for side in (self._image, self._text))
        self._fits = csr_array((np.ones(len(image), dtype=bool), (self._image, self._text)), shape=shape)
        self._unique = shape == (len(image), len(image))

    def masked(self, batch: np.ndarray) -> np.ndarray | None:
        """(b, b) bool of the batch of these pairs: True off the diagonal where image i and text j fit; None if
        nowhere."""
        if self._unique:
            return None
        found = self._fits[self._image[batch]][:, self._text[batch]].toarray().astype(bool)
        np.fill_diagonal(found, False)
        return found if found.any() else None


def contents(rows: np.ndarray) -> np.ndarray:
    """(n,) numbers, equal for rows with the same bytes; the rows are read as they are stored."""
    flat = np.ascontiguousarray(rows)
    _, number = np.unique(
        flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0], return_inverse=True
    )
    return np.asarray(number, dtype=np.int64).reshape(-1)


def _similarities(image: np.ndarray, text: np.ndarray, masked: np.ndarray | None) -> np.ndarray:
    if image.ndim != 2 or image.shape != text.shape or not len(image):
        raise FeaturesMismatch(
            f"image rows are {image.shape} and text rows {text.shape}; pass at least one pair, both (n, d)"
        )
    if masked is not None and masked.shape != (len(image), len(image)):
        raise FeaturesMismatch(f"masked has shape {masked.shape}, expected {(len(image), len(image))}")
    return np.asarray(image @ text.T)
