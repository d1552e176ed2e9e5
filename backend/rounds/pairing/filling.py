"""Items come into a catalogue: from a folder of images, from CSV or JSON lines, from tasks somebody imported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend.errors import CatalogueInvalid, MediaError, PairTaskInvalid, ProjectUnsuited
from backend.labelstudio.pair_tasks import NONE, UNSURE, thumbnail
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.rounds.services import Services, schema_of
from backend.store import catalogue, projects
from backend.store.catalogue import NewItem

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
# A file that no address leads to is shown and encoded from a copy of at most this size.
COPY_SIDE, COPY_BYTES, COPY_THREADS = 768, 60_000, 4
CONTENT_FIELDS = {"image": ("image", "url", "path"), "text": ("text", "caption", "title")}
LONGEST_ID = 120


@dataclass(frozen=True)
class Added:
    """What came in: how many items were given, and how many of them were new or changed."""

    given: int
    changed: int


def add_items(
    services: Services,
    project_id: int,
    *,
    images: Path | None = None,
    texts: Path | None = None,
    image_prefix: str = "",
    stream: bool = False,
) -> Added:
    """Add images and texts to the pools of a pairing project; safe to repeat.

    Parameters
    ----------
    images
        A folder of image files, or a .csv, .jsonl or .json file with addresses in a column `image`, `url` or `path`.
    texts
        A .csv, .jsonl or .json file with a column `text`, `caption` or `title`, or a .txt file with one text a line.
        A column `id` names items in both; without it the file's name or the number of the line does.
    image_prefix
        Address that leads to the folder of images, such as `/data/local-files/?d=shop`. Without it every task
        carries a copy of its image of at most 768 pixels.
    stream
        The items arrived just now: they wait in the stream instead of entering the pool.

    Raises
    ------
    ProjectUnsuited
        The project does not ask for pairs.
    CatalogueInvalid
        Naming the file, the line and what is wrong; nothing was added.
    """
    project = projects.get(services.store, project_id)
    if schema_of(project).kind != "pairing":
        raise ProjectUnsuited(
            f"project = {project_id} ({project.title}) does not ask for pairs, so it has no catalogue. Create one"
            " with `mmal project create --template image_text_pairing`"
        )
    items: list[NewItem] = []
    if images is not None:
        items += _image_files(images, image_prefix) if images.is_dir() else _table(images, "image")
    if texts is not None:
        items += _lines(texts) if texts.suffix == ".txt" else _table(texts, "text")
    if not items:
        raise CatalogueInvalid(
            f"images = {images}, texts = {texts}: no item found. Give a folder or a file with items"
        )
    _check_ids(services, project_id, items)
    changed = catalogue.add(services.store, project_id, items, state="buffer" if stream else "pool")
    return Added(len(items), changed)


def absorb_tasks(
    services: Services, project_id: int, schema: TaskSchema, snapshots: Sequence[TaskSnapshot], *, stream: bool
) -> int:
    """Tasks that ask nothing become items: whoever imports through Label Studio or the SDK fills the pools so.

    The tasks are deleted there once their items are stored: nobody could answer them.
    """
    items = []
    for snapshot in snapshots:
        for modality, content in (("image", schema.image_of(snapshot.data)), ("text", schema.text_of(snapshot.data))):
            if content:
                given = snapshot.data.get("id")
                name = given if isinstance(given, str) and given else f"task-{snapshot.id}"
                items.append(NewItem(f"{modality}:{name}"[:LONGEST_ID], modality, content))
    added = catalogue.add(services.store, project_id, items, state="buffer" if stream else "pool")
    services.label_studio.delete_tasks(project_id, [snapshot.id for snapshot in snapshots])
    return added


def _image_files(folder: Path, prefix: str) -> list[NewItem]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    if prefix:
        contents = [f"{prefix.rstrip('/')}/{quote(name)}" for name in names]
    else:
        with ThreadPoolExecutor(COPY_THREADS) as pool:
            contents = list(pool.map(_copy, files))
    return [NewItem(f"image:{name}", "image", content) for name, content in zip(names, contents, strict=True)]


def _copy(path: Path) -> str:
    try:
        return thumbnail(path.read_bytes(), side=COPY_SIDE, most_bytes=COPY_BYTES)
    except (OSError, MediaError, PairTaskInvalid) as error:
        raise CatalogueInvalid(f"{path} cannot be shown: {error} Take it out of the folder, or mend it") from None


def _lines(path: Path) -> list[NewItem]:
    return [NewItem(f"text:{n}", "text", line.strip()) for n, line in _numbered(_read(path)) if line.strip()]


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    # Not by splitlines, which also cuts at breaks inside a text, such as U+2028.
    return enumerate(io.StringIO(text, newline=None), 1)


def _table(path: Path, modality: str) -> list[NewItem]:
    items = []
    for line, row in _rows(path):
        field = next((name for name in CONTENT_FIELDS[modality] if row.get(name)), None)
        content = row.get(field) if field else None
        if not isinstance(content, str) or not content.strip():
            raise CatalogueInvalid(
                f"{path}, line {line}: no {' or '.join(CONTENT_FIELDS[modality])} with content. Every line needs one"
            )
        given = row.get("id")
        name = str(line if given in (None, "") else given).strip()
        items.append(NewItem(f"{modality}:{name}", modality, content.strip()))
    return items


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix not in (".csv", ".json", ".jsonl"):
        raise CatalogueInvalid(f"{path}: unknown kind of file. Give .csv, .jsonl or .json (for texts also .txt)")
    text = _read(path)
    try:
        for number, row in {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_lines}[path.suffix](text):
            if not isinstance(row, Mapping):
                raise CatalogueInvalid(f'{path}, line {number}: {str(row)[:60]!r} is no object such as {{"id": ...}}')
            yield number, row
    except csv.Error as error:
        raise CatalogueInvalid(f"{path}: not CSV ({error}). Write it as JSON lines, one object a line") from None
    except json.JSONDecodeError as error:
        raise CatalogueInvalid(f"{path}: not JSON ({error}). Write one object a line, or a list of them") from None


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    return enumerate(csv.DictReader(io.StringIO(text, newline="")), 1)


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    loaded = json.loads(text)
    return enumerate(loaded if isinstance(loaded, list) else [loaded], 1)


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    return ((number, json.loads(line)) for number, line in _numbered(text) if line.strip())


def _check_ids(services: Services, project_id: int, items: Sequence[NewItem]) -> None:
    seen: set[str] = set()
    for item in items:
        bare = item.item_id.partition(":")[2]
        if item.item_id in seen:
            raise CatalogueInvalid(f"id = {bare!r} stands twice among the {item.modality}s. Give each item its own")
        if not bare or bare in (NONE, UNSURE) or len(item.item_id) > LONGEST_ID:
            raise CatalogueInvalid(
                f"id = {bare[:80]!r} of {item.modality} cannot be used. Give 1 to {LONGEST_ID - 6} characters"
            )
        seen.add(item.item_id)


def _read(path: Path) -> str:
    try:
        # Bytes, because text mode would change line ends inside the quotes of a CSV.
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueInvalid(f"{path} cannot be read: {error}. Give the path of a UTF-8 file") from None
