"""What a strategy sees: arrays of the whole pool, labelled rows included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from backend.errors import PoolInvalid

Features = Mapping[str, np.ndarray]
Key = TypeVar("Key")


class FusedHead(Protocol):
    """The part of a learner that a pool needs (``backend.learners.LateFusionHead`` has it).

    Linear on the concatenated features: logits = sum over m of x_m @ fused[m].T + fused_bias; seen: (C,) bool, the
    classes that had a label (single-label: the others have probability 0 and their weights mean nothing).
    """

    @property
    def fused(self) -> Mapping[str, np.ndarray]: ...

    @property
    def fused_bias(self) -> np.ndarray: ...

    @property
    def seen(self) -> np.ndarray: ...

    def probabilities(self, features: Features, *, calibrated: bool = True) -> np.ndarray: ...

    def coalition_probabilities(
        self, features: Features, coalition: frozenset[str], *, calibrated: bool = True
    ) -> np.ndarray: ...

    def unimodal_probabilities(self, features: Features, modality: str) -> np.ndarray: ...


class LazyRows(Mapping[Key, np.ndarray]):
    """Mapping to (n, C) arrays that are computed at each access and never kept; ``rows`` computes only some rows."""

    def __init__(self, keys: tuple[Key, ...], compute: Callable[[Key, Features], np.ndarray], features: Features):
        self._keys, self._compute, self._features = keys, compute, features

    def __getitem__(self, key: Key) -> np.ndarray:
        if key not in self._keys:
            raise KeyError(key)
        return self._compute(key, self._features)

    def __contains__(self, key: object) -> bool:
        # A mapping's own answer computes the array to throw it away.
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, key: Key, indices: np.ndarray) -> np.ndarray:
        """The array of ``key`` at these rows only."""
        return self._compute(key, {name: matrix[indices] for name, matrix in self._features.items()})


def rows_of(arrays: Mapping[Key, np.ndarray], key: Key, indices: np.ndarray) -> np.ndarray:
    """Some rows of one array of a mapping, without computing the rest where the mapping is lazy."""
    return arrays.rows(key, indices) if isinstance(arrays, LazyRows) else arrays[key][indices]


@dataclass(frozen=True)
class Pool:
    """One project's records as arrays.

    features: modality -> (n, D_m) float16/32 unit rows, zero row = absent (memory-mapped is fine);
    labelled: (n,) bool; labels: (n,) int or (n, C) 0/1, read on labelled rows only;
    probabilities: (n, C) fused, **without temperature** (rankings and gradients belong to the trained objective), or
    None before there is a label; coalition_probabilities: coalition -> (n, C), the fused head with the other
    modalities zeroed; unimodal_probabilities: modality -> (n, C) of the head on that modality alone; head: the
    learner itself, for strategies that ask it about rows of their own making (dropout, mixtures) or for its weights.
    Raises PoolInvalid when shapes disagree.
    """

    features: Features
    labelled: np.ndarray
    labels: np.ndarray
    n_classes: int
    multi_label: bool = False
    probabilities: np.ndarray | None = None
    coalition_probabilities: Mapping[frozenset[str], np.ndarray] = field(default_factory=dict)
    unimodal_probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    head: FusedHead | None = None

    def __post_init__(self) -> None:
        n = len(self.labelled)
        if not self.features:
            raise PoolInvalid("features is empty; a pool needs at least one modality")
        if self.labelled.dtype != np.bool_ or self.labelled.ndim != 1:
            raise PoolInvalid(f"labelled is {self.labelled.dtype} {self.labelled.shape}; pass (n,) bool")
        for name, matrix in self.features.items():
            if matrix.ndim != 2 or len(matrix) != n:
                raise PoolInvalid(f"features[{name!r}] has shape {matrix.shape}, expected ({n}, D)")
        if len(self.labels) != n:
            raise PoolInvalid(f"labels have {len(self.labels)} rows, labelled has {n}; pass one row per record")
        if self.probabilities is not None and self.probabilities.shape != (n, self.n_classes):
            raise PoolInvalid(
                f"probabilities have shape {self.probabilities.shape}, expected ({n}, {self.n_classes})"
            )

    @classmethod
    def from_head(
        cls,
        features: Features,
        labels: np.ndarray,
        labelled: np.ndarray,
        head: FusedHead | None,
        *,
        n_classes: int,
        multi_label: bool = False,
    ) -> Pool:
        """Pool of a trained head; ``head=None`` before there is one. Fused probabilities are computed now, the rest
        when a strategy asks."""
        if head is None:
            return cls(features, labelled, labels, n_classes, multi_label)
        names = tuple(sorted(features))
        return cls(
            features,
            labelled,
            labels,
            n_classes,
            multi_label,
            head.probabilities(features, calibrated=False),
            LazyRows(
                _subsets(names), lambda s, part: head.coalition_probabilities(part, s, calibrated=False), features
            ),
            LazyRows(names, lambda name, part: head.unimodal_probabilities(part, name), features),
            head,
        )

    def __len__(self) -> int:
        return len(self.labelled)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        return tuple(sorted(self.features))

    @property
    def unlabelled(self) -> np.ndarray:
        """Indices of the rows that may be picked, ascending."""
        return np.flatnonzero(~self.labelled)

    def require_probabilities(self) -> np.ndarray:
        """The fused probabilities; raises PoolInvalid when the pool has labels but no head."""
        if self.probabilities is None:
            raise PoolInvalid("probabilities is None although rows are labelled; train a head and use Pool.from_head")
        return self.probabilities

    def require_head(self) -> FusedHead:
        """The head; raises PoolInvalid when the pool has labels but no head, or probabilities without one."""
        self.require_probabilities()
        if self.head is None:
            raise PoolInvalid("head is None although probabilities are given; build the pool with Pool.from_head")
        return self.head


def _subsets(names: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    return tuple(
        frozenset(name for bit, name in enumerate(names) if code >> bit & 1) for code in range(2 ** len(names))
    )
