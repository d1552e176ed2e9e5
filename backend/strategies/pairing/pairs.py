"""What a pair strategy sees and what it returns: two pools without a pairing, and the pairs known so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from backend.errors import PairsInvalid

# In the order of the columns of ``known``; the first one wins ties between the two.
MODALITIES = ("image", "text")
CHUNK_ROWS = 8192


def other(modality: str) -> str:
    """The modality that the counterpart of an item is of."""
    return MODALITIES[1 - MODALITIES.index(modality)]


@dataclass(frozen=True)
class Pairs:
    """Two pools of items as arrays; how they belong together is known for some of them only.

    features: modality -> (n_m, D_m) frozen vectors, a space of its own for each; joint: modality -> (n_m, d) rows in
    the space of the current model, compared by their cosine. float16 or 32, memory-mapped is fine; lengths do not
    matter where cosines are taken. A row that is all zero in either has no vector: it is neither asked about nor
    offered.
    known: (p, 2) int64 rows (image, text) of the pairs so far; askable: modality -> (n_m,) bool, items that may be
    asked about now (paired ones are left out anyway); one_to_one: an item has one counterpart, so that paired items
    are not offered again; offered: modality -> (n_m,) bool, items that may stand among the candidates, all where a
    modality is not named; rounds_asked: modality of the rounds so far, oldest first, for rules that look back;
    refused: modality -> row of an item -> rows of the other modality that an annotator saw beside "none of these":
    they are not offered to it again, and an item that has seen all there are is not asked about.

    Setting and names: Zhang and Zhu, arXiv 2510.03247 (unaligned.md section 1); pools of unequal size, ``askable``,
    ``offered``, ``refused`` and items without counterpart are ours. Raises PairsInvalid where arrays disagree.
    """

    features: Mapping[str, np.ndarray]
    joint: Mapping[str, np.ndarray]
    known: np.ndarray
    askable: Mapping[str, np.ndarray]
    one_to_one: bool = True
    offered: Mapping[str, np.ndarray] = field(default_factory=dict)
    rounds_asked: tuple[str, ...] = ()
    refused: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, arrays in (("features", self.features), ("joint", self.joint), ("askable", self.askable)):
            if set(arrays) != set(MODALITIES):
                raise PairsInvalid(f"{name} has the modalities {sorted(arrays)}; give {list(MODALITIES)}")
        for name, arrays in (("features", self.features), ("joint", self.joint)):
            for modality, matrix in arrays.items():
                if matrix.ndim != 2 or len(matrix) != self.size(modality):
                    raise PairsInvalid(
                        f"{name}[{modality!r}] has shape {matrix.shape}, expected ({self.size(modality)}, D): "
                        "a row for each item that askable tells of"
                    )
        widths = [self.joint[modality].shape[1] for modality in MODALITIES]
        if widths[0] != widths[1]:
            raise PairsInvalid(f"joint rows have {widths[0]} and {widths[1]} numbers; one space needs one width")
        self._check_marks()
        self._check_known()
        strange = sorted(set(self.rounds_asked) - set(MODALITIES))
        if strange:
            raise PairsInvalid(f"rounds_asked names {strange}; write {list(MODALITIES)}")

    def _check_marks(self) -> None:
        for name, named in (("askable", self.askable), ("offered", self.offered), ("refused", self.refused)):
            strange = sorted(set(named) - set(MODALITIES))
            if strange:
                raise PairsInvalid(f"{name} has the modality {strange[0]!r}; give {list(MODALITIES)}")
        for name, arrays in (("askable", self.askable), ("offered", self.offered)):
            for modality, mask in arrays.items():
                if mask.dtype != np.bool_ or mask.shape != (self.size(modality),):
                    raise PairsInvalid(
                        f"{name}[{modality!r}] is {mask.dtype} {mask.shape}; pass ({self.size(modality)},) bool"
                    )

    def _check_known(self) -> None:
        known = self.known
        if known.ndim != 2 or known.shape[1] != 2 or known.dtype.kind not in "iu":
            raise PairsInvalid(f"known is {known.dtype} {known.shape}; pass (p, 2) whole numbers, rows (image, text)")
        for column, modality in enumerate(MODALITIES):
            rows = known[:, column]
            if len(rows) and not (rows.min() >= 0 and rows.max() < self.size(modality)):
                raise PairsInvalid(
                    f"known names {modality} rows {rows.min()} to {rows.max()} of {self.size(modality)}; "
                    "pass rows of the pool"
                )
            if self.one_to_one and len(np.unique(rows)) < len(rows):
                raise PairsInvalid(
                    f"known pairs some {modality} twice; settle the conflict first, or set one_to_one to False"
                )

    def size(self, modality: str) -> int:
        """Items of a modality."""
        return len(self.askable[modality])

    def paired(self, modality: str) -> np.ndarray:
        """Rows that are in a known pair, ascending."""
        return np.unique(self.known[:, MODALITIES.index(modality)]).astype(np.int64)

    def open(self, modality: str) -> np.ndarray:
        """(n_m,) bool: items that may be asked about, unpaired, askable, with a vector, and not with all candidates
        refused."""
        mask = self.askable[modality] & self.present[modality]
        mask[self.paired(modality)] = False
        if modality in self.refused:
            offered = self.candidates(other(modality))
            total = int(offered.sum())
            mask &= total > 0
            mask[[item for item, rows in self.refused[modality].items() if int(offered[rows].sum()) == total]] = False
        return mask

    def candidates(self, modality: str) -> np.ndarray:
        """(n_m,) bool: items that may stand among the candidates for a query of the other modality."""
        mask = self.present[modality].copy()
        if modality in self.offered:
            mask &= self.offered[modality]
        if self.one_to_one:
            mask[self.paired(modality)] = False
        return mask

    @cached_property
    def present(self) -> Mapping[str, np.ndarray]:
        """modality -> (n_m,) bool: items with a vector in both spaces; one pass over them, kept."""
        out = {}
        for m in MODALITIES:
            out[m] = _nonzero_rows(self.joint[m])
            if self.features[m] is not self.joint[m]:
                out[m] &= _nonzero_rows(self.features[m])
        return out


def _nonzero_rows(matrix: np.ndarray) -> np.ndarray:
    parts = [(matrix[b : b + CHUNK_ROWS] != 0).any(axis=1) for b in range(0, len(matrix), CHUNK_ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


@dataclass(frozen=True)
class Query:
    """One question: which item of the other modality belongs to ``item``?

    candidates: (<= K,) rows of the other modality, best first, at most as many as there are; figures: what is known
    of the choice, finite numbers only; why: one of WHY, the fact that tells most.
    """

    modality: str
    item: int
    candidates: np.ndarray
    figures: Mapping[str, float]
    why: str


# Codes of Query.why. None says anything of the answer.
WHY: Mapping[str, str] = {
    "uncovered": "far from every pair known so far",
    "narrow_margin": "its two best candidates are close to one another",
    "likely": "its best candidate is more similar than those of others",
    "confusable": "close to the counterpart of a pair it does not belong to",
    "random": "drawn at random by a strategy that does so",
    "control": "drawn at random to measure how well the candidates do",
}


@dataclass(frozen=True)
class PairSelection:
    """queries: in the order they are worth asking, distinct; modality: the one this round asks about, None where it
    asks about both or nothing; parts: name -> array, the workings of the strategy (documented there)."""

    queries: tuple[Query, ...]
    modality: str | None = None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def items(self, modality: str) -> np.ndarray:
        """Rows asked about of one modality, in order."""
        return np.array([query.item for query in self.queries if query.modality == modality], dtype=np.int64)
