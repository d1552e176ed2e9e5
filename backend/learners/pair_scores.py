"""Scores of a joint space: is the true counterpart among the nearest, and are swapped pairs told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import FeaturesMismatch, PairsInvalid

DEPTHS = (1, 5, 10)
# Similarities a block of queries has at most: 32 MB in float64.
BLOCK_ENTRIES = 4_000_000
# Equal rows may differ by this much in a matrix product, depending on where in a block they stand; they tie.
ROUNDING = 1e-12


def ranks(queries: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(q,) int64: how many rows of the gallery are strictly more similar to each query than its counterpart.

    queries: (q, d), gallery: (g, d), any float type, cosine if unit rows; truth: (q,) row of the counterpart.
    Computed in float64, in blocks of queries. Raises FeaturesMismatch, PairsInvalid.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise FeaturesMismatch(
            f"queries are {queries.shape} and the gallery {gallery.shape}; embed both in one space"
        )
    truth = np.asarray(truth)
    if truth.shape != (len(queries),) or (len(truth) and (truth.min() < 0 or truth.max() >= len(gallery))):
        raise PairsInvalid(f"truth has shape {truth.shape}; give each of {len(queries)} queries a row of the gallery")
    above = np.empty(len(queries), dtype=np.int64)
    columns = np.asarray(gallery, dtype=np.float64).T
    step = max(1, BLOCK_ENTRIES // max(1, len(gallery)))
    for begin in range(0, len(queries), step):
        part = slice(begin, begin + step)
        similarities = np.asarray(queries[part], dtype=np.float64) @ columns
        above[part] = ranks_in(similarities, truth[part], ROUNDING)
    return above


def ranks_in(similarities: np.ndarray, truth: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """The same from similarities (q, g); above means by more than ``tolerance``."""
    own = similarities[np.arange(len(similarities)), truth]
    return np.asarray((similarities > own[:, None] + tolerance).sum(axis=1), dtype=np.int64)


def recall(rank: np.ndarray, depths: Sequence[int] = DEPTHS) -> dict[int, float]:
    """Recall at each depth: share of queries with fewer than that many rows above the truth; nan without queries."""
    return {depth: float((rank < depth).mean()) if len(rank) else float("nan") for depth in depths}


@dataclass(frozen=True)
class Retrieval:
    """Recall at each depth: images asked for their text, and texts for their image."""

    image_to_text: Mapping[int, float]
    text_to_image: Mapping[int, float]

    def mean(self, depth: int) -> float:
        """Mean of both ways."""
        return (self.image_to_text[depth] + self.text_to_image[depth]) / 2


def retrieval(
    image: np.ndarray, text: np.ndarray, pairs: np.ndarray | None = None, depths: Sequence[int] = DEPTHS
) -> Retrieval:
    """Recall both ways of joint rows; an item with several true counterparts counts by the best of them.

    image: (n, d), text: (m, d); pairs: (p, 2) rows (image, text) that are true, by default row i with row i. Only
    items that occur in a pair are asked for; everything is in the gallery.
    Source: recall@k of retrieval, rank = number strictly above the truth (unaligned.md, section 9). Several true
    counterparts: our reading of ECCV Caption (Chun et al., 2022).
    Raises FeaturesMismatch, PairsInvalid.
    """
    if pairs is None:
        if len(image) != len(text):
            raise PairsInvalid(f"{len(image)} images and {len(text)} texts; name the true pairs where these differ")
        pairs = np.repeat(np.arange(len(image))[:, None], 2, axis=1)
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise PairsInvalid(f"pairs have shape {pairs.shape}; pass (p, 2) rows (image, text)")
    ways = []
    for side, queries, gallery in ((0, image, text), (1, text, image)):
        asked, row = np.unique(pairs[:, side], return_inverse=True)
        each = ranks(np.asarray(queries)[pairs[:, side]], gallery, pairs[:, 1 - side])
        best = np.full(len(asked), np.iinfo(np.int64).max)
        np.minimum.at(best, row.reshape(-1), each)
        ways.append(recall(best, depths))
    return Retrieval(*ways)


@dataclass(frozen=True)
class GroupScores:
    """Which groups of two images and two texts are right; each (g,) bool."""

    text: np.ndarray
    image: np.ndarray
    group: np.ndarray

    def means(self) -> dict[str, float]:
        """Share of groups that are right: text, image and group score; nan without groups."""
        parts = {"text": self.text, "image": self.image, "group": self.group}
        return {name: float(hit.mean()) if len(hit) else float("nan") for name, hit in parts.items()}


def group_scores(similarities: np.ndarray) -> GroupScores:
    """Text, image and group score of similarities (g, 2, 2), image by text, true pairs on the diagonal; all strict.

    text: each image prefers its text (S00 > S01 and S11 > S10); image: each text prefers its image (S00 > S10 and
    S11 > S01); group: both. Source: Winoground (Thrush et al., CVPR 2022), as in unaligned.md, section 4.1.
    Raises FeaturesMismatch.
    """
    s = np.asarray(similarities)
    if s.ndim != 3 or s.shape[1:] != (2, 2):
        raise FeaturesMismatch(f"groups have shape {s.shape}; pass (g, 2, 2), two images by two texts each")
    text = (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])
    image = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    return GroupScores(text, image, text & image)


def group_scores_of(image: np.ndarray, text: np.ndarray, groups: np.ndarray) -> GroupScores:
    """The same from joint rows: groups (g, 2, 2) holds the rows (image, text) of the two pairs of each group."""
    groups = np.asarray(groups)
    if groups.ndim != 3 or groups.shape[1:] != (2, 2):
        raise PairsInvalid(f"groups have shape {groups.shape}; pass (g, 2, 2), the rows of two pairs each")
    left = np.asarray(image[groups[:, :, 0]], dtype=np.float64)
    right = np.asarray(text[groups[:, :, 1]], dtype=np.float64)
    return group_scores(np.einsum("gid,gjd->gij", left, right))
