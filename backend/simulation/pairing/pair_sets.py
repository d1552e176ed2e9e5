"""A set of true pairs as a replay of pairing sees it: arrays, what is of equal content, and where training starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from backend.errors import UnknownDataset
from backend.learners.projection import ProjectionHead
from backend.simulation.datasets import build_dataset, dataset_names
from backend.simulation.drawn_set import DrawnSet
from backend.simulation.pairing import twins
from backend.simulation.pairs import embed_dataset, load_dataset
from backend.simulation.splits import near_duplicates, same_content
from backend.simulation.warm_start import train_warm_start

POOL, HELD_OUT = 800, 300
# tux12 is smaller than a pool and a test of the usual size.
SIZES: Mapping[str, tuple[int, int]] = {"tux12": (400, 200)}


@dataclass(frozen=True)
class PairingSet(DrawnSet):
    """Row i of everything is one true pair; a replay hides that.

    Attributes
    ----------
    contents : "image", "text" -> (n,) numbers, equal where the picture or the text is the same
    labels : (n,) int64 class of each pair, which pools may be drawn by; no strategy sees it
    couples : (g, 2) rows of near-twins; none in most sets
    start : the projection that every round starts from, trained without this set
    """

    contents: Mapping[str, np.ndarray]
    labels: np.ndarray
    couples: np.ndarray
    start: ProjectionHead

    def _arrays(self) -> Iterable[np.ndarray]:
        return [
            *super()._arrays(),
            self.groups,
            self.couples,
            self.labels,
            *(self.contents[m] for m in sorted(self.contents)),
            *self._feature_arrays(),
            *(self.start.weights[m] for m in sorted(self.start.weights)),
        ]

    def _own_facts(self) -> Mapping[str, object]:
        return {"couples": len(self.couples)}

    def true_partners(self, modality: str, row: int) -> np.ndarray:
        """(n,) bool: items of the other modality that some pair joins to the content of this item."""
        own, theirs = self.contents[modality], self.contents["text" if modality == "image" else "image"]
        return np.isin(theirs, theirs[own == own[row]])


def named_pairing_set(name: str, cache_dir: Path, encoder: str) -> PairingSet:
    """A benchmark set, or ``twins``, downloaded and embedded where the cache lacks it; its start never saw it.

    Raises
    ------
    UnknownDataset, DataSourceUnavailable, DatasetInvalid, EncoderError
    """
    known = [*dataset_names(), twins.NAME]
    if name not in known:
        raise UnknownDataset(f"data set {name!r} has no pairs to hide. Known: {', '.join(sorted(known))}.")
    made = name == twins.NAME
    pairs = load_dataset(twins.build_twins(cache_dir) if made else build_dataset(name, cache_dir))
    features = embed_dataset(pairs, encoder, cache_dir)
    # Twins are painted from the drawings of another set: that one must not have been seen either.
    unseen = [name, twins.SOURCE] if made else [name]
    couples = np.arange(len(pairs), dtype=np.int64).reshape(-1, 2) if made else np.empty((0, 2), dtype=np.int64)
    pictures = same_pictures(pairs.images)
    apart = couple_groups(couples) if made else one_sided(near_duplicates(pairs.texts), pictures)
    pool, held_out = SIZES.get(name, (POOL, HELD_OUT))
    return PairingSet(
        name,
        features,
        apart,
        {"image": pictures, "text": same_content(pairs.texts)},
        pairs.labels,
        couples,
        train_warm_start(exclude=unseen, cache_dir=cache_dir, encoder=encoder),
        pool=pool,
        held_out=held_out,
        notes=(f"start trained without {' and '.join(unseen)}",),
    )


def same_pictures(paths: Sequence[Path]) -> np.ndarray:
    """(n,) numbers, equal for files of the same bytes."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return np.asarray(np.unique(digests, return_inverse=True)[1], dtype=np.int64).reshape(-1)


def one_sided(texts: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """(n,) numbers, equal for rows that equal texts or equal pictures, or chains of both, join."""
    edges = csr_array((np.ones(len(texts), dtype=bool), (texts, pictures + texts.max() + 1)))
    size = max(edges.shape)
    edges.resize((size, size))
    return np.asarray(connected_components(edges, directed=False)[1][texts], dtype=np.int64)


def couple_groups(couples: np.ndarray) -> np.ndarray:
    """(2 g,) number of the couple of each row."""
    groups = np.empty(couples.size, dtype=np.int64)
    groups[couples] = np.arange(len(couples))[:, None]
    return groups
