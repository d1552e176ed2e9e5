"""Mean average precision of retrieval across two modalities, in blocks of queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.errors import FeaturesMismatch, InvalidRetrievalOption, LabelsInvalid

BLOCK_QUERIES = 256
# A block has fewer queries where its distances to all items would take more than this; a query needs one row.
BLOCK_BYTES = 64 * 2**20
ITEM_CHUNK = 8192
DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True)
class RetrievalScore:
    """Figures of one direction.

    mean: mAP@all over the scored queries, NaN where there is none; per_class: (C,) the same over the queries that
    have the class, NaN for a class without one; scored: queries that counted; without_relevant: queries left out
    because no item shares a label with them; absent: queries and items left out because their row is zero.
    """

    mean: float
    per_class: np.ndarray
    scored: int
    without_relevant: int
    absent: int


@dataclass(frozen=True)
class TwoWayScore:
    """Both directions; mean: the average of their means."""

    image_to_text: RetrievalScore
    text_to_image: RetrievalScore

    @property
    def mean(self) -> float:
        """Average of the two mAP@all."""
        return (self.image_to_text.mean + self.text_to_image.mean) / 2.0


def mean_average_precision(
    queries: np.ndarray,
    items: np.ndarray,
    query_labels: np.ndarray,
    item_labels: np.ndarray,
    *,
    distance: str = "cosine",
    block: int = BLOCK_QUERIES,
) -> RetrievalScore:
    """mAP@all of ranking ``items`` for each of ``queries``; relevant = at least one label in common.

    AP_q = (1 / R_q) sum over ranks k of rel_k (hits up to k) / k; items at equal distance rank by index. Distances
    are float64, so that the ranking is that of the numbers given. Queries without a relevant item, and zero rows
    (an absent modality), are left out and counted; dividing by their R_q = 0 would make every mean NaN.

    queries, items: (q, D), (n, D), float16 memory maps allowed; query_labels, item_labels: (q, C), (n, C) 0/1;
    distance: "cosine" or "euclidean" (the same ranking on rows of length 1). Memory: O(block n), at most about
    ``BLOCK_BYTES`` of distances. Raises FeaturesMismatch, LabelsInvalid and InvalidRetrievalOption.
    Source: ascmr.md section 4 (the authors' protocol); what is left out is ours.
    """
    _check(queries, items, query_labels, item_labels, distance, block)
    there = np.flatnonzero(_present(items))
    asked = np.flatnonzero(_present(queries))
    wanted, labels = np.asarray(query_labels) > 0, np.asarray(item_labels)[there] > 0
    held = labels.T.astype(np.float32)
    rows = max(1, min(block, BLOCK_BYTES // (8 * max(len(there), 1))))
    found = np.full(len(queries), np.nan)
    for begin in range(0, len(asked), rows):
        part = asked[begin : begin + rows]
        relevant = wanted[part].astype(np.float32) @ held > 0
        useful = relevant.any(axis=1)
        part, relevant = part[useful], relevant[useful]
        if len(part):
            found[part] = average_precisions(_distances(queries[part], items, there, distance), relevant)
    scored = np.isfinite(found)
    return RetrievalScore(
        mean=float(found[scored].mean()) if scored.any() else float("nan"),
        per_class=_by_class(found, scored, wanted),
        scored=int(scored.sum()),
        without_relevant=len(asked) - int(scored.sum()),
        absent=len(queries) - len(asked) + len(items) - len(there),
    )


def two_way_score(
    embedded: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    distance: str = "cosine",
    images: str = "image",
    texts: str = "text",
    block: int = BLOCK_QUERIES,
) -> TwoWayScore:
    """mAP@all from images to texts and from texts to images over the same pairs, labels (n, C) 0/1.

    Raises as ``mean_average_precision``.
    """
    missing = [name for name in (images, texts) if name not in embedded]
    if missing:
        raise FeaturesMismatch(f"embedded lacks {missing[0]!r}, it has {sorted(embedded)}; name the two modalities")
    one, other = embedded[images], embedded[texts]
    return TwoWayScore(
        mean_average_precision(one, other, labels, labels, distance=distance, block=block),
        mean_average_precision(other, one, labels, labels, distance=distance, block=block),
    )


def average_precisions(distances: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """AP (q,) float64 of each row: distances (q, n), relevant (q, n) bool with at least one True a row.

    Only relevant items need a rank: with the relevant and all distances sorted, the r-th relevant item stands behind
    all that are strictly nearer. Sorting values is several times as fast as sorting indices; rows in which another
    item lies as far as a relevant one are ranked by index.
    """
    ordered = np.sort(distances, axis=1)
    out = np.empty(len(distances))
    for row, (values, mask) in enumerate(zip(distances, relevant, strict=True)):
        own = np.sort(values[mask])
        ranks = np.searchsorted(ordered[row], own, side="left") + 1
        # What stands next is as far: a tie.
        if (ordered[row][np.minimum(ranks, len(values) - 1)] == own)[ranks < len(values)].any():
            ranks = np.flatnonzero(mask[np.argsort(values, kind="stable")]) + 1
        out[row] = (np.arange(1, len(own) + 1) / ranks).mean()
    return out


def _distances(queries: np.ndarray, items: np.ndarray, there: np.ndarray, distance: str) -> np.ndarray:
    """(q, len(there)) float64; items are read in chunks."""
    asked = np.asarray(queries, dtype=np.float64)
    if distance == "cosine":
        asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    out = np.empty((len(asked), len(there)))
    for begin in range(0, len(there), ITEM_CHUNK):
        part = slice(begin, min(begin + ITEM_CHUNK, len(there)))
        chunk = np.asarray(items[there[part]], dtype=np.float64)
        if distance == "cosine":
            out[:, part] = 1.0 - asked @ (chunk / np.linalg.norm(chunk, axis=1, keepdims=True)).T
        else:
            # |q|^2 is the same for all items of a query.
            out[:, part] = np.einsum("ij,ij->i", chunk, chunk) - 2.0 * (asked @ chunk.T)
    return out


def _present(matrix: np.ndarray) -> np.ndarray:
    """(n,) bool, rows that are not zero; read in chunks."""
    there = np.empty(len(matrix), dtype=bool)
    for begin in range(0, len(matrix), ITEM_CHUNK):
        chunk = np.asarray(matrix[begin : begin + ITEM_CHUNK])
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if len(bad):
            raise FeaturesMismatch(
                f"row {begin + int(bad[0])} holds NaN or infinity; store a zero row for an absent modality"
            )
        there[begin : begin + ITEM_CHUNK] = chunk.any(axis=1)
    return there


def _by_class(found: np.ndarray, scored: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    count = wanted[scored].sum(axis=0)
    total = found[scored] @ wanted[scored]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _check(
    queries: np.ndarray,
    items: np.ndarray,
    query_labels: np.ndarray,
    item_labels: np.ndarray,
    distance: str,
    block: int,
) -> None:
    if distance not in DISTANCES:
        raise InvalidRetrievalOption(f"distance is {distance!r}; choose one of {list(DISTANCES)}")
    if block < 1:
        raise InvalidRetrievalOption(f"block is {block}; a block needs at least 1 query")
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise FeaturesMismatch(
            f"queries have shape {queries.shape}, items {items.shape}; both need rows of one shared space"
        )
    for name, labels, rows in (("query_labels", query_labels, queries), ("item_labels", item_labels, items)):
        shape = np.shape(labels)
        if len(shape) != 2 or shape[0] != len(rows) or shape[1] != np.shape(query_labels)[-1]:
            raise LabelsInvalid(f"{name} have shape {shape}; pass ({len(rows)}, C) 0/1, the same C for both")
