"""The Gaussian heads, match probability and loss of the ASCMR authors' code, for records of what they compute.

As released the method does not run (ascmr.md section 5); these are its parts, each as its own function computes it.
``probabilistic_selector`` is the one that is used. Source: ascmr.md sections 2.2 to 2.4, [CODE].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import expit, logsumexp

from backend.strategies.kernels.gaussian_match import Gaussians
from backend.strategies.kernels.linear_scores import softmax_rows

State = Mapping[str, np.ndarray]
# Scale and shift of the match logit; the authors never give them to the optimiser.
SCALE = SHIFT = 15.0
LAYER_NORM_EPS = 1e-5
DISTANCE_EPS = 1e-6


def stacked_attention(rows: np.ndarray, state: State) -> np.ndarray:
    """Single-head self-attention layers one after the other over the rows of a batch, no residual between them; a
    row's output depends on its batch mates. state: ``self_attention.attn_layers.K.*``, torch layout (out x in)."""
    out, layer = rows, 0
    while (prefix := f"self_attention.attn_layers.{layer}.") + "in_proj_weight" in state:
        joined = out @ state[prefix + "in_proj_weight"].T + state[prefix + "in_proj_bias"]
        query, key, value = np.split(joined, 3, axis=1)
        mixed = softmax_rows(query @ key.T / np.sqrt(query.shape[1])) @ value
        out = mixed @ state[prefix + "out_proj.weight"].T + state[prefix + "out_proj.bias"]
        layer += 1
    return out


def image_gaussians(rows: np.ndarray, state: State) -> Gaussians:
    """mu = LN(sigmoid(F_mu a) + h), variance = relu(F_s a + h), a = attention; eval mode, float64."""
    rows = np.asarray(rows, dtype=np.float64)
    attended = stacked_attention(rows, state)
    mean = _layer_norm(expit(_linear(attended, state, "fc_for_mean")) + rows, state)
    return Gaussians(mean, np.maximum(_linear(attended, state, "fc_for_variance") + rows, 0.0))


def text_gaussians(rows: np.ndarray, state: State) -> Gaussians:
    """As ``image_gaussians`` with a linear map G_1 inside the norm and G_2 behind the relu: the "variance" of a text
    has a sign, which the sampler takes for a log-sigma."""
    rows = np.asarray(rows, dtype=np.float64)
    attended = stacked_attention(rows, state)
    mean = _linear(expit(_linear(attended, state, "fc_for_mean")) + rows, state, "fc1_final")
    positive = np.maximum(_linear(attended, state, "fc_for_variance") + rows, 0.0)
    return Gaussians(_layer_norm(mean, state), _linear(positive, state, "fc2_final"))


def reparameterised_samples(gaussians: Gaussians, noise: np.ndarray) -> np.ndarray:
    """z = mu + exp(Var) * noise, (n, K, D); noise: (n, K, D) standard normal."""
    return np.asarray(gaussians.mean[:, None] + np.exp(gaussians.variance)[:, None] * noise)


def sampled_distances(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """sqrt(|z_v^k - z_t^l|^2 + 1e-6) of (n, K, D) samples row by row, (n, K * K), the text's sample varying slower.

    By inner products, so that memory is n K (K + D)."""
    squared = np.einsum("nkd,nkd->nk", text, text)[:, :, None] + np.einsum("nkd,nkd->nk", image, image)[:, None, :]
    squared = squared - 2.0 * np.matmul(text, image.transpose(0, 2, 1))
    return np.asarray(np.sqrt(np.maximum(squared, 0.0) + DISTANCE_EPS).reshape(len(image), -1))


def sampled_match_probability(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Mean over the K^2 pairs of samples of e^l / (e^l + e^-l), l = 15 - 15 distance; (n,) float64."""
    distances = sampled_distances(np.asarray(image, np.float64), np.asarray(text, np.float64))
    return np.asarray(expit(2.0 * (SHIFT - SCALE * distances)).mean(axis=1))


def pcme_loss(image: np.ndarray, text: np.ndarray) -> tuple[float, float, float]:
    """(total, matched part, mismatched part) of the soft contrastive loss, summed over all ordered pairs of a batch
    of (B, K, D) samples: log K^2 - logsumexp_k(m l_k - log(e^l_k + e^-l_k)), m = 1 for i = j and -1 otherwise."""
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    size, draws = image.shape[:2]
    losses = np.empty((size, size))
    for i in range(size):
        logits = SHIFT - SCALE * sampled_distances(np.broadcast_to(image[i], text.shape), text)
        sign = np.where(np.arange(size) == i, 1.0, -1.0)[:, None]
        losses[i] = np.log(draws**2) - logsumexp(sign * logits - np.logaddexp(logits, -logits), axis=1)
    matched = float(np.trace(losses))
    return float(losses.sum()), matched, float(losses.sum()) - matched


def dispersion_rows(image: Gaussians, text: Gaussians) -> np.ndarray:
    """u(mu_v - mu_t) + u(Var_t - Var_v), u = row over its length, (n, D): what the code calls a Wasserstein distance
    and adds to a scalar."""
    return _unit(image.mean - text.mean) + _unit(text.variance - image.variance)


def variance_directions(gaussians: Gaussians) -> np.ndarray:
    """u(Var), (n, D): the code's intra-modality term, a vector where a number is meant."""
    return _unit(gaussians.variance)


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _linear(rows: np.ndarray, state: State, name: str) -> np.ndarray:
    return np.asarray(rows @ state[name + ".weight"].T + state[name + ".bias"])


def _layer_norm(rows: np.ndarray, state: State) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + LAYER_NORM_EPS)
    return np.asarray(centred / spread * state["layer_norm.weight"] + state["layer_norm.bias"])
