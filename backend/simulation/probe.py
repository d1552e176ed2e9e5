"""Looks at a data set: how much each modality tells about the class, and what the pictures are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from backend.learners import LateFusionHead
from backend.simulation.pairs import Pairs, embed_dataset

Features = Mapping[str, np.ndarray]

_FOLDS = 3
_DRAWS = 10
_FEW = 5


@dataclass(frozen=True)
class Probe:
    """Accuracy of the linear head in use: cross-validated, and from a few labels per class."""

    features: str
    cross_validated: float
    from_few: float


def measure(pairs: Pairs, cache_dir: Path, encoder: str = "packaged") -> list[Probe]:
    """Probe image, text and both: grouped stratified 3-fold accuracy, and the mean over draws of 5 per class.

    Items with the same text are never on both sides.
    """
    vectors = embed_dataset(pairs, encoder, cache_dir)
    views = {"image": ("image",), "text": ("text",), "both": ("image", "text")}
    return [
        Probe(name, _cross_validated(view, pairs), _from_few(view, pairs))
        for name, view in ((name, {key: vectors[key] for key in keys}) for name, keys in views.items())
    ]


def table(probes: list[Probe]) -> str:
    """Return the probes as a text table."""
    lines = [f"{'features':10} {_FOLDS}-fold   {_FEW} per class"]
    lines += [f"{probe.features:10} {probe.cross_validated:.3f}    {probe.from_few:.3f}" for probe in probes]
    return "\n".join(lines)


def contact_sheet(pairs: Pairs, per_row: int = 24, cell: int = 96) -> Image.Image:
    """Return one picture of the whole set: the classes one after another, texts below the pictures."""
    rows: list[list[int]] = []
    for label in range(len(pairs.classes)):
        members = np.flatnonzero(pairs.labels == label).tolist()
        rows += [members[start : start + per_row] for start in range(0, len(members), per_row)]
    height = cell + 26
    sheet = Image.new("RGB", (per_row * cell, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, item in enumerate(row):
            with Image.open(pairs.images[item]) as image:
                picture = image.convert("RGB")
            picture.thumbnail((cell - 6, cell - 6))
            sheet.paste(picture, (x * cell + 3, y * height + 3))
            caption = f"{pairs.classes[pairs.labels[item]]}: {pairs.texts[item]}"
            lines = textwrap.wrap(caption, 16)[:2]
            draw.text((x * cell + 2, y * height + cell - 2), "\n".join(lines), fill="black", font_size=10)
    return sheet


def _cross_validated(view: Features, pairs: Pairs) -> float:
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    right = [
        _accuracy(view, pairs, train, test) * len(test)
        for train, test in folds.split(np.zeros((len(pairs), 1)), pairs.labels, pairs.groups)
    ]
    return sum(right) / len(pairs)


def _from_few(view: Features, pairs: Pairs) -> float:
    scores = []
    for seed in range(_DRAWS):
        train = few_per_class(pairs, np.random.default_rng(seed))
        test = np.flatnonzero(~np.isin(pairs.groups, pairs.groups[train]))
        scores.append(_accuracy(view, pairs, train, test))
    return float(np.mean(scores))


def few_per_class(pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of 5 random items of each class, no two with the same text."""
    taken: list[int] = []
    for label in range(len(pairs.classes)):
        members = rng.permutation(np.flatnonzero(pairs.labels == label))
        _, first = np.unique(pairs.groups[members], return_index=True)
        taken += members[np.sort(first)][:_FEW].tolist()
    return np.array(taken)


def _accuracy(view: Features, pairs: Pairs, train: np.ndarray, test: np.ndarray) -> float:
    head = LateFusionHead.fit(
        {name: rows[train] for name, rows in view.items()},
        pairs.labels[train],
        n_classes=len(pairs.classes),
        calibrate=False,
    )
    predicted = head.probabilities({name: rows[test] for name, rows in view.items()}).argmax(axis=1)
    return float((predicted == pairs.labels[test]).mean())
