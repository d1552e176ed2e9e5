"""A set of pairs with several labels each, as a replay of retrieval sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import UnknownDataset
from backend.simulation.datasets import build_dataset, dataset_names
from backend.simulation.drawn_set import DrawnSet
from backend.simulation.openclipart import PACKAGES, read_drawings
from backend.simulation.packages import debian_packages
from backend.simulation.pairing.pair_sets import one_sided, same_pictures
from backend.simulation.pairs import embed_dataset, load_dataset
from backend.simulation.retrieval.tags import LEAST_SHARE, MOST_SHARE, drawing_folders, tagged
from backend.simulation.splits import near_duplicates

POOL, HELD_OUT = 600, 300
# tux12 is smaller than a pool and a test of the usual size.
SIZES: Mapping[str, tuple[int, int]] = {"tux12": (380, 190)}


@dataclass(frozen=True)
class RetrievalSet(DrawnSet):
    """Pairs with several labels each.

    Attributes
    ----------
    labels : (n, C) int8 0/1
    classes : (C,) names of the labels
    """

    labels: np.ndarray
    classes: Sequence[str]

    def _arrays(self) -> Iterable[np.ndarray]:
        return [*super()._arrays(), self.labels, self.groups, *self._feature_arrays()]

    def _own_facts(self) -> Mapping[str, object]:
        return {
            "labels": len(self.classes),
            "labels_a_pair": round(float(self.labels.sum(axis=1).mean()), 2),
        }


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
        one_sided(near_duplicates(pairs.texts), same_pictures(pairs.images)),
        tags.labels,
        tags.names,
        pool=pool,
        held_out=held_out,
        notes=(note,),
    )
