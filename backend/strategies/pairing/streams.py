"""Items that arrive one after the other: what of a full buffer is worth keeping, and a decision on each item."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.errors import InvalidOption, StreamStateInvalid
from backend.strategies.kernels.views import squared_euclidean
from backend.strategies.pairing.base import Picks, queries_of
from backend.strategies.pairing.covering import Coverage
from backend.strategies.pairing.matching import Matching
from backend.strategies.pairing.pairs import MODALITIES, Pairs, PairSelection, Query
from backend.strategies.pairing.spaces import Space

# Paired items that distances are taken to at once.
ANCHOR_ROWS = 4096


def farthest_of(
    pairs: Pairs, selection: PairSelection, keep: int, *, space: str = "joint", distance: str = "cosine"
) -> dict[str, np.ndarray]:
    """Modality -> rows, ascending, of the ``keep`` items in all that are worth a place in the next buffer: those not
    asked about with the largest distance to the nearest paired one, relative to the radius of their modality.

    Ties: images, then the lowest row. Source: unaligned.md section 3; the measure is ours.
    """
    measure, names, numbers = [], [], []
    for place, modality in enumerate(MODALITIES):
        mask = pairs.open(modality)
        mask[selection.items(modality)] = False
        if mask.any():
            found = Coverage.of(
                Space.of(pairs, modality, space, distance),
                pairs.paired(modality),
                mask,
                pairs.present[modality],
                spread=False,
            )
            rows = np.flatnonzero(mask)
            measure.append(found.distance[rows] / (found.radius or 1.0))
            names.append(np.full(len(rows), place))
            numbers.append(rows)
    if not measure:
        return {modality: np.empty(0, dtype=np.int64) for modality in MODALITIES}
    which, row = np.concatenate(names), np.concatenate(numbers)
    kept = np.lexsort((row, which, -np.round(np.concatenate(measure), 6)))[:keep]
    return {m: np.sort(row[kept][which[kept] == place]) for place, m in enumerate(MODALITIES)}


def item_figures(
    pairs: Pairs, modality: str, items: np.ndarray, *, space: str = "joint", distance: str = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """(cover, margin) of some items, what ``ItemStream`` decides by: distance to the nearest paired item of their
    modality (inf while there is none) and s1 - s2 among the candidates (inf with fewer than two); float64.

    Reads only these items, the paired ones and the candidates.
    """
    own = Space.of(pairs, modality, space, distance)
    paired = pairs.paired(modality)
    squared = np.full(len(items), np.inf)
    vectors = own.rows(items).astype(np.float64)
    for begin in range(0, len(paired), ANCHOR_ROWS):
        anchors = own.rows(paired[begin : begin + ANCHOR_ROWS]).astype(np.float64)
        np.minimum(squared, squared_euclidean(vectors, anchors).min(axis=1), out=squared)
    return own.distance(squared), Matching.of(pairs, modality).best(items, 2).margin


def arrival_figures(pairs: Pairs, modality: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As ``item_figures`` of any number of items; while nothing is paired the cover is the distance to the mean
    direction of the modality, as in a cold start."""
    cover, margin = np.empty(len(items)), np.empty(len(items))
    for begin in range(0, len(items), ANCHOR_ROWS):
        part = slice(begin, begin + ANCHOR_ROWS)
        cover[part], margin[part] = item_figures(pairs, modality, items[part])
    if not len(pairs.known) and len(items):
        cover = Space.of(pairs, modality, "joint", "cosine").to_mean(pairs.present[modality])[items]
    return cover, margin


def item_queries(
    pairs: Pairs, modality: str, items: np.ndarray, why: Sequence[str], cover: np.ndarray, candidates: int
) -> list[Query]:
    """Questions about some items, each with its candidates, best first."""
    return queries_of(pairs, Picks(modality, items, why, {"cover": cover}), candidates) if len(items) else []


@dataclass(frozen=True)
class _Recent:
    """A reservoir of recent values of one kind: a new value takes the place of a random old one."""

    capacity: int
    values: list[float] = field(default_factory=list)
    ordered: list[float] = field(default_factory=list)

    def add(self, value: float, rng: np.random.Generator) -> None:
        """Take a value in."""
        if len(self.values) < self.capacity:
            self.values.append(value)
        else:
            place = int(rng.integers(self.capacity))
            del self.ordered[bisect_left(self.ordered, self.values[place])]
            self.values[place] = value
        insort(self.ordered, value)

    def refill(self, values: Sequence[float]) -> None:
        """Hold these values, in this order."""
        self.values[:], self.ordered[:] = values, sorted(values)

    def quantile(self, level: float) -> float:
        """Value at this level of those held, between two of them in proportion."""
        place = min(max(level, 0.0), 1.0) * (len(self.ordered) - 1)
        low = int(place)
        high = min(low + 1, len(self.ordered) - 1)
        return self.ordered[low] + (place - low) * (self.ordered[high] - self.ordered[low])


class ItemStream:
    """Decides on each arriving item by itself whether to ask about it, at a wanted rate. All of it is ours.

    An item is asked about where its distance to the nearest paired item is above the (1 - c1 c rate) quantile of
    recent ones and its margin at or below their 1 / c quantile, c = B_C / B being ``factor``: where the two are
    independent that is a share ``rate``. Where they are not, a controller corrects: after each item
    c1 <- c1 exp(eta (rate - recent rate)). Modality by running radii: an item has a chance only if the running
    radius of its modality (largest recent distance, fading) is the larger one or it is the only modality seen; with
    ``by_modality=False`` all have. The first ``WARM_UP`` items of a modality are asked about at random, at the rate.
    Same arrivals, same seed: same decisions, restarts included.

    Source: unaligned.md section 6.4.
    """

    WARM_UP = 50
    # The recent rate and the radii look back on about so many items asked about.
    LOOK_BACK = 20

    def __init__(
        self,
        rate: float,
        *,
        factor: float = 4.0,
        capacity: int = 2000,
        eta: float = 0.1,
        by_modality: bool = True,
        seed: int = 0,
    ) -> None:
        # Whoever takes 1 / rate as factor means that very rate, though their product may be a bit above 1.
        if not (factor >= 1.0 and rate > 0.0 and rate * factor <= 1.0 + 1e-12):
            raise InvalidOption(
                f"rate is {rate} and factor {factor}; factor must be 1 or more and rate above 0, at most 1 / factor"
            )
        if capacity < self.WARM_UP:
            raise InvalidOption(f"capacity is {capacity}; a reservoir holds {self.WARM_UP} values or more")
        self.rate, self.factor, self.capacity, self.eta = rate, factor, capacity, eta
        self.by_modality = by_modality
        self.correction = 1.0
        self.recent_rate = rate
        self.radii = dict.fromkeys(MODALITIES, 0.0)
        self.covers = {modality: _Recent(capacity) for modality in MODALITIES}
        self.margins = {modality: _Recent(capacity) for modality in MODALITIES}
        self.rng = np.random.default_rng(seed)

    def warming(self, modality: str) -> bool:
        """The next item of the modality is decided on at random: too few are known to compare it with."""
        return len(self.covers[modality].values) < self.WARM_UP

    def offer(self, modality: str, cover: float, margin: float) -> bool:
        """Whether to ask about an item with this distance to the nearest paired one and this margin.

        Raises InvalidOption for a number that is not finite: an item without candidates or pairs cannot be judged.
        """
        if modality not in MODALITIES or not (np.isfinite(cover) and np.isfinite(margin)):
            raise InvalidOption(
                f"item of {modality!r} has cover {cover} and margin {margin}; pass one of {list(MODALITIES)} "
                "and finite numbers"
            )
        fade = 1.0 - self.rate / self.LOOK_BACK
        self.radii = {name: radius * fade for name, radius in self.radii.items()}
        self.radii[modality] = max(self.radii[modality], cover)
        chosen = self._wants(modality, cover, margin)
        self.covers[modality].add(cover, self.rng)
        self.margins[modality].add(margin, self.rng)
        self.recent_rate = self.recent_rate * fade + chosen * (1.0 - fade)
        highest = 1.0 / (self.factor * self.rate)
        self.correction *= float(np.exp(self.eta * (self.rate - self.recent_rate)))
        self.correction = min(max(self.correction, 1e-3), highest)
        return chosen

    def _wants(self, modality: str, cover: float, margin: float) -> bool:
        covers, margins = self.covers[modality], self.margins[modality]
        if self.warming(modality):
            return bool(self.rng.random() < self.rate)
        if self.by_modality and self.radii[modality] < max(self.radii.values()):
            return False
        far = cover >= covers.quantile(1.0 - self.correction * self.factor * self.rate)
        return bool(far and margin <= margins.quantile(1.0 / self.factor))

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "rate": self.rate,
            "factor": self.factor,
            "capacity": self.capacity,
            "eta": self.eta,
            "by_modality": self.by_modality,
            "correction": self.correction,
            "recent_rate": self.recent_rate,
            "radii": dict(self.radii),
            "covers": {name: list(kept.values) for name, kept in self.covers.items()},
            "margins": {name: list(kept.values) for name, kept in self.margins.items()},
            "rng": self.rng.bit_generator.state,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ItemStream:
        """The stream as it was; raises StreamStateInvalid for what ``state`` never gave."""
        try:
            out = cls(
                float(state["rate"]),
                factor=float(state["factor"]),
                capacity=int(state["capacity"]),
                eta=float(state["eta"]),
                by_modality=bool(state["by_modality"]),
            )
            out.correction, out.recent_rate = float(state["correction"]), float(state["recent_rate"])
            out.radii = {name: float(state["radii"][name]) for name in MODALITIES}
            for name in MODALITIES:
                out.covers[name].refill([float(value) for value in state["covers"][name]])
                out.margins[name].refill([float(value) for value in state["margins"][name]])
            out.rng.bit_generator.state = dict(state["rng"])
        except (KeyError, TypeError, ValueError) as error:
            raise StreamStateInvalid(
                f"stored state of a stream lacks or garbles {error}; start a new stream"
            ) from error
        return out
