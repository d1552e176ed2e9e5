"""Projections trained on the benchmark sets, as a start for projects without pairs, and what they carry over.

A simulation takes one trained without the set under test: ``train_warm_start(exclude=[name], ...)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import gammaln

from backend.encoders import encoder_id
from backend.errors import ReplayInvalid
from backend.learners.canonical import SHRINKAGE
from backend.learners.pair_scores import DEPTHS, Retrieval, retrieval
from backend.learners.projection import WIDTH, ProjectionHead
from backend.learners.warm_start import read_warm_start, write_warm_start
from backend.simulation.datasets import build_dataset
from backend.simulation.labelled_set import DEMO
from backend.simulation.pairs import Pairs, embed_dataset, load_dataset
from backend.simulation.splits import near_duplicates
from backend.simulation.tower_classes import tower_classes

SOURCES = ("openclipart16", "fluent57")
# Sets whose items were taken from another's packages: leaving out one means leaving out both.
MADE_FROM = {"demo": "openclipart16"}
# Part of the name of cached files: raise when they are made differently.
RECIPE = f"canonical-1+{SHRINKAGE}"
HELD_OUT = 4


@dataclass(frozen=True)
class PairSet:
    """A set of true pairs, row i with row i: (n, D_m) unit rows, and near-equal texts by number."""

    name: str
    features: dict[str, np.ndarray]
    groups: np.ndarray

    def part(self, rows: np.ndarray) -> PairSet:
        """Some rows of it."""
        return PairSet(self.name, {m: x[rows] for m, x in self.features.items()}, self.groups[rows])


def pair_set(name: str, cache_dir: Path, encoder: str = "packaged") -> PairSet:
    """A named set, downloaded and embedded where the cache lacks it.

    Raises
    ------
    UnknownDataset, DataSourceUnavailable, DatasetInvalid, EncoderError
    """
    pairs: Pairs = load_dataset(DEMO if name == "demo" else build_dataset(name, cache_dir))
    return PairSet(name, embed_dataset(pairs, encoder, cache_dir), near_duplicates(pairs.texts))


def sources_without(datasets: Iterable[str], exclude: Iterable[str]) -> list[str]:
    """The sets of ``datasets`` that share no packages with one of ``exclude``, sorted.

    Raises
    ------
    ReplayInvalid
        None is left.
    """
    left_out = {MADE_FROM.get(name, name) for name in exclude}
    kept = sorted({name for name in datasets if MADE_FROM.get(name, name) not in left_out})
    if not kept:
        raise ReplayInvalid(
            f"no set is left to train a warm start on without {', '.join(sorted(left_out))}; name more"
        )
    return kept


def train_warm_start(
    datasets: Sequence[str] = SOURCES,
    *,
    exclude: Sequence[str] = (),
    cache_dir: Path,
    encoder: str = "packaged",
) -> ProjectionHead:
    """A projection trained on all pairs of these sets but the excluded, kept in the cache in float16, as shipped.

    Raises
    ------
    ReplayInvalid, UnknownDataset, DataSourceUnavailable, DatasetInvalid, EncoderError
    """
    names = sources_without(datasets, exclude)
    sets = [pair_set(name, cache_dir, encoder) for name in names]
    classes = tower_classes(cache_dir, encoder)
    identifier = encoder_id(encoder)
    path = cache_dir / "warm_start" / f"{'+'.join(names)}-{_fingerprint(sets, classes, identifier)}.safetensors"
    if not path.is_file():
        write_warm_start(path, projection_of(sets, classes), identifier, notes(names))
    return read_warm_start(path, identifier)


def projection_of(sets: Sequence[PairSet], classes: tuple[np.ndarray, np.ndarray] | None) -> ProjectionHead:
    """Canonical directions of the pairs of these sets together and, with equal weight, of the tower's own classes.

    No contrastive training follows: from there it lost recall on every set that was not trained on, at each number of
    steps that was tried.
    """
    features = [np.concatenate([one.features[m] for one in sets]) for m in ("image", "text")]
    sources = [(features[0], features[1])]
    return ProjectionHead.canonical([*sources, classes] if classes is not None else sources, width=WIDTH)


def notes(names: Sequence[str]) -> dict[str, str]:
    """What a file says about its making."""
    return {"trained_on": " ".join(names), "recipe": RECIPE}


def _fingerprint(sets: Sequence[PairSet], classes: tuple[np.ndarray, np.ndarray] | None, identifier: str) -> str:
    digest = hashlib.sha256(repr((identifier, RECIPE, WIDTH)).encode())
    for rows in [*(one.features[m] for one in sets for m in sorted(one.features)), *(classes or ())]:
        digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()[:16]


# -- what it carries over -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """How well a projection finds pairs of a set, beside guessing.

    images, texts: sizes of the galleries, near-equal texts being one; chance: of a random order.
    """

    trained_on: str
    scored_on: str
    images: int
    texts: int
    found: Retrieval
    chance: Retrieval


def scored(head: ProjectionHead, tested: PairSet, trained_on: str, scored_on: str) -> Transfer:
    """Recall both ways on all pairs of a set. Near-equal texts are one text with several true images."""
    _, first, group = np.unique(tested.groups, return_index=True, return_inverse=True)
    pairs = np.stack([np.arange(len(group)), group.reshape(-1)], axis=1)
    found = retrieval(
        head.embed("image", tested.features["image"]), head.embed("text", tested.features["text"][first]), pairs
    )
    return Transfer(trained_on, scored_on, len(group), len(first), found, chance(pairs))


def chance(pairs: np.ndarray, depths: Sequence[int] = DEPTHS) -> Retrieval:
    """Expected recall both ways of a random order, exactly; pairs: (p, 2) distinct."""
    ways = []
    for side in (0, 1):
        size = len(np.unique(pairs[:, 1 - side]))
        true = np.unique(pairs[:, side], return_counts=True)[1]
        ways.append({depth: float(np.mean(1.0 - _none_of(size, true, depth))) for depth in depths})
    return Retrieval(*ways)


def _none_of(size: int, true: np.ndarray, depth: int) -> np.ndarray:
    """Probability that none of ``true`` of ``size`` items is among the first ``depth`` of a random order."""
    rest = size - true
    possible = rest >= depth
    rest = np.where(possible, rest, depth)
    return np.asarray(
        np.where(
            possible & (depth <= size),
            np.exp(
                gammaln(rest + 1) - gammaln(rest - depth + 1) - gammaln(size + 1) + gammaln(max(size - depth, 0) + 1)
            ),
            0.0,
        )
    )


def held_out_quarter(groups: np.ndarray, seed: int) -> np.ndarray:
    """(n,) bool: a random quarter of the near-equal texts."""
    names = np.unique(groups)
    rng = np.random.default_rng(seed)
    return np.isin(groups, rng.permutation(names)[: len(names) // HELD_OUT])


def transfers(cache_dir: Path, encoder: str = "packaged", seeds: Sequence[int] = (0, 1, 2)) -> list[Transfer]:
    """Every source alone and both, on every set they have not seen; then quarters held out of the sources, mean over
    seeds (the recall of a projection trained on the rest of both)."""
    sets = {name: pair_set(name, cache_dir, encoder) for name in (*SOURCES, "tux12")}
    classes = tower_classes(cache_dir, encoder)
    found = []
    for names in (*((name,) for name in SOURCES), SOURCES):
        for test in (name for name in sets if name not in names):
            head = train_warm_start(names, exclude=[test], cache_dir=cache_dir, encoder=encoder)
            found.append(scored(head, sets[test], " + ".join(names), test))
    for test in SOURCES:
        found.append(_mean([_held_out(sets, classes, test, seed) for seed in seeds]))
    return found


def _held_out(
    sets: dict[str, PairSet], classes: tuple[np.ndarray, np.ndarray] | None, test: str, seed: int
) -> Transfer:
    held = held_out_quarter(sets[test].groups, seed)
    rest = [one.part(~held) if name == test else one for name, one in sets.items() if name in SOURCES]
    head = projection_of(rest, classes)
    return scored(head, sets[test].part(held), "the rest of both", f"{test}, a held-out quarter")


def _mean(parts: Sequence[Transfer]) -> Transfer:
    def mean(ways: Sequence[Retrieval]) -> Retrieval:
        return Retrieval(
            {k: float(np.mean([way.image_to_text[k] for way in ways])) for k in DEPTHS},
            {k: float(np.mean([way.text_to_image[k] for way in ways])) for k in DEPTHS},
        )

    return Transfer(
        parts[0].trained_on,
        parts[0].scored_on,
        round(np.mean([part.images for part in parts])),
        round(np.mean([part.texts for part in parts])),
        mean([part.found for part in parts]),
        mean([part.chance for part in parts]),
    )
