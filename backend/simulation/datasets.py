"""Benchmark sets of labelled image-text pairs, built from packages that install without a model hub.

| name          | items | classes | source                                             | licence       |
|---------------|-------|---------|----------------------------------------------------|---------------|
| openclipart16 | 2475  | 16      | Debian openclipart-png, openclipart-svg            | public domain |
| fluent57      | 1600  | 57      | npm @lobehub/fluent-emoji-3d, emojibase-data       | MIT           |
| tux12         | 605   | 12      | Debian tuxpaint-stamps-default                     | GPL-2         |

None of them is part of this repository: they are downloaded, cleaned and kept in a cache folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from backend.errors import UnknownDataset
from backend.simulation.emoji import read_emoji
from backend.simulation.openclipart import PACKAGES as OPENCLIPART_PACKAGES
from backend.simulation.openclipart import PNG_FOLDER, read_drawings
from backend.simulation.packages import debian_packages, npm_package
from backend.simulation.pairs import PAIRS_FILE, Pairs, embed_dataset, load_dataset, picture_on_white, write_pairs
from backend.simulation.stamps import PACKAGE as STAMPS_PACKAGE
from backend.simulation.stamps import read_stamps

__all__ = ["Pairs", "SourceItem", "build_dataset", "dataset_names", "embed_dataset", "load_dataset"]

LONGEST_SIDE = 256
MIN_PER_CLASS = 10
_VAGUE_FOLDERS = frozenset({"unsorted", "special", "logos", "buttons", "containers", "science"})


@dataclass(frozen=True)
class SourceItem:
    """A labelled pair where its package has it."""

    picture: Path
    text: str
    label: str


def dataset_names() -> list[str]:
    """Return the names that ``build_dataset`` knows."""
    return sorted(_READERS)


def build_dataset(name: str, cache_dir: Path) -> Path:
    """Return the folder of a benchmark set, downloading and cleaning it when the cache lacks it.

    Raises
    ------
    UnknownDataset
    DataSourceUnavailable
        A package cannot be downloaded.
    """
    reader = _READERS.get(name)
    if reader is None:
        raise UnknownDataset(f"data set {name!r} is not known. Known: {', '.join(dataset_names())}.")
    target = cache_dir / "datasets" / name
    if (target / PAIRS_FILE).is_file():
        return target
    items = _classes_with_enough(reader(cache_dir))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        _write(items, unfinished)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _openclipart(cache_dir: Path) -> Iterable[SourceItem]:
    unpacked = debian_packages(OPENCLIPART_PACKAGES, cache_dir)
    for drawing in read_drawings(unpacked):
        if drawing.folders and drawing.folders[0] not in _VAGUE_FOLDERS:
            yield SourceItem(unpacked / PNG_FOLDER / drawing.path, drawing.title, drawing.folders[0])


def _fluent(cache_dir: Path) -> Iterable[SourceItem]:
    pictures = npm_package("@lobehub/fluent-emoji-3d", "1.1.0", cache_dir)
    words = npm_package("emojibase-data", "17.0.0", cache_dir)
    for emoji in read_emoji(pictures, words):
        yield SourceItem(emoji.picture, emoji.label, emoji.subgroup)


def _tux(cache_dir: Path) -> Iterable[SourceItem]:
    for stamp in read_stamps(debian_packages([STAMPS_PACKAGE], cache_dir)):
        yield SourceItem(stamp.picture, stamp.caption, stamp.folder)


_READERS: Mapping[str, Callable[[Path], Iterable[SourceItem]]] = MappingProxyType(
    {"openclipart16": _openclipart, "fluent57": _fluent, "tux12": _tux}
)


def _classes_with_enough(items: Iterable[SourceItem]) -> list[SourceItem]:
    kept = list(items)
    counts = Counter(item.label for item in kept)
    return [item for item in kept if counts[item.label] >= MIN_PER_CLASS]


def _write(items: list[SourceItem], folder: Path) -> None:
    (folder / "images").mkdir()
    rows = []
    for number, item in enumerate(tqdm(items, desc=folder.name, disable=None), start=1):
        image = f"images/{number:05d}.webp"
        picture_on_white(item.picture, LONGEST_SIDE).save(folder / image, quality=92, method=4)
        rows.append({"id": f"{number:05d}", "image": image, "text": item.text, "label": item.label})
    write_pairs(folder, rows, sorted({item.label for item in items}))
