"""A set of pairs with several labels each, as a replay of retrieval sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from backend.errors import UnknownDataset
from backend.simulation.datasets import build_dataset, dataset_names
from backend.simulation.openclipart import PACKAGES, read_drawings
from backend.simulation.packages import debian_packages
from backend.simulation.pairing.pair_sets import one_sided, same_pictures
from backend.simulation.pairs import embed_dataset, load_dataset
from backend.simulation.retrieval.tags import LEAST_SHARE, MOST_SHARE, drawing_folders, tagged
from backend.simulation.splits import drawn_sides, near_duplicates

POOL, HELD_OUT = 600, 300
BATCH, BUDGET = 40, 200
# tux12 is smaller than a pool and a test of the usual size.
SIZES: Mapping[str, tuple[int, int]] = {"tux12": (380, 190)}


@dataclass(frozen=True)
class RetrievalSet:
    """Row i of everything is one pair.

    Attributes
    ----------
    name : what results are filed under
    features : "image", "text" -> (n, D_m) float32 unit rows, zero row where absent
    labels : (n, C) int8 0/1
    classes : (C,) names of the labels
    groups : (n,) numbers, equal for pairs that must lie on one side of a split
    pool, held_out : pairs that a replay may label, and pairs it is scored on (about)
    batch_size, budget : labelled pairs a round, and in all
    """

    name: str
    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    classes: Sequence[str]
    groups: np.ndarray
    pool: int = POOL
    held_out: int = HELD_OUT
    batch_size: int = BATCH
    budget: int = BUDGET
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the vectors, the labels, the groups or the sizes of the split."""
        digest = hashlib.sha256(repr((self.pool, self.held_out)).encode())
        for block in (self.labels, self.groups, *(self.features[m] for m in sorted(self.features))):
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()[:16]

    @property
    def facts(self) -> dict[str, object]:
        """What results tell of the set."""
        return {
            "items": len(self),
            "labels": len(self.classes),
            "labels_a_pair": round(float(self.labels.sum(axis=1).mean()), 2),
            "batch_size": self.batch_size,
            "budget": self.budget,
            "fingerprint": self.fingerprint,
        }

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the pool and rows to be scored on, ascending; whole groups at random until the sizes are reached.

        Raises
        ------
        ReplayInvalid
            The set is too small.
        """
        return drawn_sides(self.name, self.groups, self.held_out, self.pool, seed)


def named_retrieval_set(name: str, cache_dir: Path, encoder: str) -> RetrievalSet:
    """A benchmark set with several labels a pair, downloaded and embedded where the cache lacks it.

    Raises
    ------
    UnknownDataset, DataSourceUnavailable, DatasetInvalid, EncoderError
    """
    if name not in dataset_names():
        raise UnknownDataset(f"data set {name!r} has no retrieval labels. Known: {', '.join(dataset_names())}.")
    pairs = load_dataset(build_dataset(name, cache_dir))
    folders = None
    if name == "openclipart16":
        folders = drawing_folders(pairs, read_drawings(debian_packages(PACKAGES, cache_dir)))
    tags = tagged(pairs, folders)
    several, a_pair = float((tags.labels.sum(axis=1) > 1).mean()), float(tags.labels.sum(axis=1).mean())
    pool, held_out = SIZES.get(name, (POOL, HELD_OUT))
    note = (
        f"{len(tags.names)} labels: {len(pairs.classes)} classes,"
        f" {len(tags.names) - len(pairs.classes)} folders and words of {100 * LEAST_SHARE:.0f} to"
        f" {100 * MOST_SHARE:.0f}% of the pairs; {a_pair:.1f} labels a pair, {100 * several:.0f}% of the pairs have"
        " more than one. Texts hold the words, so their side is easier than in a project."
    )
    return RetrievalSet(
        name,
        embed_dataset(pairs, encoder, cache_dir),
        tags.labels,
        tags.names,
        one_sided(near_duplicates(pairs.texts), same_pictures(pairs.images)),
        pool,
        held_out,
        notes=(note,),
    )
