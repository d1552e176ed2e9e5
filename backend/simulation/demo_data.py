"""Makes the demo set: 800 public-domain drawings with their titles, in 14 classes a person can tell apart.

Which drawings are taken, their order and their split follow from hashes of their paths: the same packages give
the same set on any machine.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from backend.errors import DatasetInvalid
from backend.simulation.demo_exclusions import EXCLUDED
from backend.simulation.openclipart import PNG_FOLDER, Drawing, read_drawings, spoken_title
from backend.simulation.pairs import LABELS_FILE, PAIRS_FILE, on_white, picture_on_white, text_key, write_pairs

ITEMS = 800
HOLDOUT = 200
LONGEST_SIDE = 192
PER_TITLE = 2
PROVENANCE_FILE = "PROVENANCE.md"
_SMALLEST_SOURCE = 40
_LEAST_CONTRAST = 8.0


@dataclass(frozen=True)
class ClassRule:
    """Which folders make a class, which of their subfolders do not, and words that would give it away."""

    folders: tuple[str, ...]
    without: tuple[str, ...] = ()
    giveaways: tuple[str, ...] = ()


CLASSES: Mapping[str, ClassRule] = MappingProxyType(
    {
        "Animal": ClassRule(("animals",), ("animals/fantasy",), ("animal", "animals", "animale")),
        "Building": ClassRule(("buildings",), ("buildings/furniture",), ("building", "buildings")),
        "Clothing": ClassRule(("people/clothing",), ("people/clothing/pantyhose",), ("clothing", "clothes")),
        "Computer": ClassRule(("computer",), ("computer/buttons", "computer/icons"), ("computer", "computers")),
        "Flag": ClassRule(
            ("signs_and_symbols/flags",), ("signs_and_symbols/flags/semaphore",), ("flag", "flags", "flagge")
        ),
        "Food": ClassRule(("food",), (), ("food", "foods")),
        "Map": ClassRule(("geography",), ("geography/astronomy",), ("map", "maps", "mapa", "carte")),
        "Music": ClassRule(("recreation/music",), (), ("music", "musical")),
        "Office": ClassRule(("office",), (), ("office",)),
        "Person": ClassRule(("people",), ("people/clothing", "people/smilies"), ("person", "people", "persona")),
        "Plant": ClassRule(("plants",), (), ("plant", "plants", "pianta")),
        "Sport or game": ClassRule(
            ("recreation/sports", "recreation/games", "recreation/toys"), (), ("sport", "sports", "game", "games")
        ),
        "Tool": ClassRule(("tools",), ("tools/weapons", "tools/toys"), ("tool", "tools")),
        "Vehicle": ClassRule(
            ("transportation",), ("transportation/roadsigns", "transportation/aiga-symbols"), ("vehicle", "vehicles")
        ),
    }
)
# Titles that name the artist or the collection, not the drawing.
_NAMELESS = re.compile(r"rollandin|collection|clip-?art|untitled|\bsvg\b|[ÃÂ\ufffd&]", re.IGNORECASE)


@dataclass(frozen=True)
class DemoItem:
    """A drawing chosen for the demo set."""

    drawing: Drawing
    text: str
    label: str

    @property
    def order(self) -> str:
        """A fixed pseudo-random key."""
        return hashlib.sha256(f"mmal-demo-1:{self.drawing.path}".encode()).hexdigest()


def build_demo(unpacked: Path, target: Path) -> list[dict[str, object]]:
    """Write the demo set (pictures, pairs.jsonl, labels.txt, PROVENANCE.md) and return its rows.

    Parameters
    ----------
    unpacked
        Folder into which openclipart-png and openclipart-svg were unpacked.
    target
        Folder of the set; what an earlier run wrote there is replaced.

    Raises
    ------
    DataSourceUnavailable, DatasetInvalid
    """
    items = choose_items(read_drawings(unpacked), unpacked / PNG_FOLDER)
    held_out = choose_holdout(items)
    pool = [item for item in items if item.drawing.path not in held_out]
    ordered = pool + [item for item in items if item.drawing.path in held_out]
    shutil.rmtree(target / "images", ignore_errors=True)
    (target / "images").mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number, item in enumerate(ordered, start=1):
        image = f"images/{number:04d}.webp"
        picture = _cropped(unpacked / PNG_FOLDER / item.drawing.path)
        picture.save(target / image, quality=80, method=6)
        rows.append(
            {
                "id": f"{number:04d}",
                "image": image,
                "text": item.text,
                "label": item.label,
                "holdout": item.drawing.path in held_out,
            }
        )
    write_pairs(target, rows, list(CLASSES))
    (target / PROVENANCE_FILE).write_text(_provenance(ordered), encoding="utf-8")
    return rows


def choose_items(drawings: Iterable[Drawing], png_root: Path) -> list[DemoItem]:
    """Return the chosen drawings in a fixed mixed order, every class capped at the same size.

    Raises
    ------
    DatasetInvalid
        The packages hold fewer than ITEMS drawings that will do.
    """
    candidates: dict[str, list[DemoItem]] = {name: [] for name in CLASSES}
    class_of_title: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for drawing in drawings:
        label = class_of(drawing.folders)
        text = spoken_title(drawing.title)
        key = text_key(text)
        if label is None or drawing.path.startswith(EXCLUDED) or not is_telling(text, label):
            continue
        # A title that two classes share would have to be in both sides' labels: the first class keeps it.
        if class_of_title.setdefault(key, label) != label or seen[key] == PER_TITLE:
            continue
        if _is_visible(png_root / drawing.path):
            seen[key] += 1
            candidates[label].append(DemoItem(drawing, text, label))
    return _capped(candidates)


def class_of(folders: Sequence[str]) -> str | None:
    """Return the class of a folder, or None when it is in none."""
    place = "/".join(folders) + "/"
    for name, rule in CLASSES.items():
        inside = any(place.startswith(folder + "/") for folder in rule.folders)
        if inside and not any(place.startswith(folder + "/") for folder in rule.without):
            return name
    return None


def is_telling(text: str, label: str) -> bool:
    """Return whether a title says something of its own and does not just name its class."""
    words = text_key(text).split()
    giveaways = (*CLASSES[label].giveaways, label.lower())
    return len("".join(words)) >= 3 and not _NAMELESS.search(text) and not set(words) & set(giveaways)


def choose_holdout(items: Sequence[DemoItem]) -> set[str]:
    """Return the paths of the HOLDOUT items: stratified by class, items of one title on one side."""
    quotas = _quotas(Counter(item.label for item in items))
    chosen: set[str] = set()
    for label, quota in quotas.items():
        groups: dict[str, list[str]] = {}
        for item in sorted((item for item in items if item.label == label), key=lambda item: item.order):
            groups.setdefault(text_key(item.text), []).append(item.drawing.path)
        taken: list[str] = []
        for paths in groups.values():
            if len(taken) + len(paths) <= quota:
                taken += paths
        chosen.update(taken)
    if len(chosen) != HOLDOUT:
        raise DatasetInvalid(f"holdout has {len(chosen)} items instead of {HOLDOUT}; too many share a title.")
    return chosen


def _quotas(counts: Counter[str]) -> dict[str, int]:
    """Share HOLDOUT out in proportion, by largest remainder."""
    total = sum(counts.values())
    exact = {label: HOLDOUT * count / total for label, count in counts.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: HOLDOUT - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _capped(candidates: Mapping[str, list[DemoItem]]) -> list[DemoItem]:
    total = sum(map(len, candidates.values()))
    if total < ITEMS:
        raise DatasetInvalid(f"only {total} drawings will do, {ITEMS} are needed. Are both packages complete?")
    cap = 1
    while sum(min(len(items), cap) for items in candidates.values()) < ITEMS:
        cap += 1
    ordered = [sorted(items, key=lambda item: item.order)[:cap] for items in candidates.values()]
    surplus = sum(map(len, ordered)) - ITEMS
    full = [items for items in ordered if len(items) == cap]
    for items in full[:surplus]:
        items.pop()
    return sorted((item for items in ordered for item in items), key=lambda item: item.order)


def _is_visible(png: Path) -> bool:
    """Return whether the drawing is large enough and can be seen on white."""
    with Image.open(png) as image:
        if max(image.size) < _SMALLEST_SOURCE:
            return False
    return float(np.asarray(picture_on_white(png, 64), dtype=np.float32).std()) >= _LEAST_CONTRAST


def _cropped(png: Path) -> Image.Image:
    """Return the drawing on white, without the empty page around it: many fill a corner of theirs only."""
    with Image.open(png) as image:
        layer = image.convert("RGBA")
    # What is transparent is empty; white is not (half of a flag may be white).
    box = layer.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is not None:
        left, top, right, bottom = box
        margin = max(right - left, bottom - top) // 20
        layer = layer.crop((left - margin, top - margin, right + margin, bottom + margin))
    return on_white(layer, LONGEST_SIDE)


def _provenance(items: Sequence[DemoItem]) -> str:
    head = f"""# Where the demo pictures come from

{len(items)} drawings of the Open Clip Art Library, as packaged by Debian (`openclipart-png`, `openclipart-svg`).
Their authors dedicated them to the public domain (Creative Commons Public Domain Dedication; see
`/usr/share/doc/openclipart-png/copyright` of the package). Changes: put on white, empty margins cut off, shrunk
to {LONGEST_SIDE} pixels, saved as WebP. The text is the title in the SVG's metadata without credits and serial
numbers. The class follows from the folder. Made by `python scripts/build_demo_data.py`; splits and classes are
in `{PAIRS_FILE}` and `{LABELS_FILE}`.

| id | source below png/ | title in the SVG | class |
|---|---|---|---|
"""
    lines = [
        f"| {number:04d} | {item.drawing.path} | {item.drawing.title.replace('|', '/')} | {item.label} |\n"
        for number, item in enumerate(items, start=1)
    ]
    return head + "".join(lines)
