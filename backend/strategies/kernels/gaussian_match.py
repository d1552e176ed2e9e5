"""Match probability of diagonal Gaussians: the Bhattacharyya coefficient, in logarithms.

Source: ascmr.md sections 2.3 to 2.6 ([NOTE]: transcribed from a third party's notes of Zhang et al., TPAMI 2025).
All arithmetic in the dtype of the arrays given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.errors import GaussiansInvalid

# A certain match has ln p = 0 and ln(1 - p) = -inf; this far below it counts as certain (section 2.8).
CERTAIN = -1e-12


@dataclass(frozen=True)
class Gaussians:
    """n Gaussians with diagonal covariance: mean and variance (n, d). Raises GaussiansInvalid when shapes differ."""

    mean: np.ndarray
    variance: np.ndarray

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or self.mean.shape != self.variance.shape:
            raise GaussiansInvalid(
                f"mean has shape {self.mean.shape} and variance {self.variance.shape}; pass two (n, d) arrays"
            )

    def __len__(self) -> int:
        return len(self.mean)

    def at(self, rows: np.ndarray | slice) -> Gaussians:
        """Some of them."""
        return Gaussians(self.mean[rows], self.variance[rows])

    def widened(self, temper: float) -> Gaussians:
        """With ``temper`` times the variances. The match probability of widened Gaussians is that of the Gaussians
        with the term of the means divided by ``temper``; it is a Bhattacharyya coefficient again, so the matrix of
        all pairs stays positive semidefinite for every temper, which p^(1/temper) does not (ours)."""
        return Gaussians(self.mean, self.variance * self.variance.dtype.type(temper))

    def sizes(self) -> np.ndarray:
        """Euclidean length of each vector of variances, (n,)."""
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", self.variance, self.variance)))


def fused(image: Gaussians, text: Gaussians) -> Gaussians:
    """mu_z = mu_v + mu_t, Sigma_z = Sigma_v + Sigma_t: the law of the sum (section 2.6)."""
    return Gaussians(image.mean + text.mean, image.variance + text.variance)


def log_match(left: Gaussians, right: Gaussians) -> np.ndarray:
    """ln p of the i-th with the i-th, (n,), at most 0: -1/8 sum (mu - mu')^2 / s - 1/2 sum ln s
    + 1/4 sum (ln Sigma + ln Sigma'), s = (Sigma + Sigma') / 2; variances must be positive."""
    middle = 0.5 * (left.variance + right.variance)
    apart = (left.mean - right.mean) ** 2 / middle
    logs = 0.25 * (np.log(left.variance) + np.log(right.variance)) - 0.5 * np.log(middle)
    return np.minimum((logs - 0.125 * apart).sum(axis=1), 0.0)


def log_match_table(left: Gaussians, right: Gaussians) -> np.ndarray:
    """ln p of every left with every right, (a, b); one coordinate at a time, never a x b x d."""
    out = np.zeros((len(left), len(right)), dtype=np.result_type(left.mean, right.mean))
    for k in range(left.mean.shape[1]):
        middle = 0.5 * (left.variance[:, k, None] + right.variance[None, :, k])
        out -= 0.125 * (left.mean[:, k, None] - right.mean[None, :, k]) ** 2 / middle
        out -= 0.5 * np.log(middle)
    own = [0.25 * np.log(side.variance).sum(axis=1) for side in (left, right)]
    out += own[0][:, None]
    out += own[1][None, :]
    return np.minimum(out, 0.0, out=out)
