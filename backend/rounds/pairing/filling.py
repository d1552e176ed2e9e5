"""Items come into a catalogue: from a folder of images, from CSV or JSON lines, from tasks somebody imported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend.errors import CatalogueInvalid, CatalogueItemInUse, MediaError, PairTaskInvalid, ProjectUnsuited
from backend.labelstudio.pair_tasks import NONE, UNSURE, thumbnail
from backend.labelstudio.records import TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.rounds.services import Services, schema_of
from backend.store import catalogue, pair_queries, projects
from backend.store.catalogue import NewItem
from backend.store.tables import PairQueryRow

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
# A file that no address leads to is shown and encoded from a copy of at most this size.
COPY_SIDE, COPY_BYTES, COPY_THREADS = 768, 60_000, 4
CONTENT_FIELDS = {"image": ("image", "url", "path"), "text": ("text", "caption", "title")}
LONGEST_ID = 120
# Answers of which nothing is kept.
FORGOTTEN = frozenset({"withdrawn", "deleted"})


@dataclass(frozen=True)
class _Given:
    """An item as a file gives it: where it stands, and its name there, empty where it has none."""

    where: str
    modality: str
    name: str
    content: str


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
    replace: bool = False,
) -> Added:
    """Add images and texts to the pools of a pairing project; safe to repeat.

    Parameters
    ----------
    images
        A folder of image files, or a .csv, .jsonl or .json file with addresses in a column `image`, `url` or `path`.
    texts
        A .csv, .jsonl or .json file with a column `text`, `caption` or `title`, or a .txt file with one text a line.
        A column `id` names items in both, as does the path of a file in a folder. An item without a name is told by
        its content: what the project holds already is not added again.
    image_prefix
        Address that leads to the folder of images, such as `/data/local-files/?d=shop`. Without it every task
        carries a copy of its image of at most 768 pixels.
    stream
        The items arrived just now: they wait in the stream instead of entering the pool.
    replace
        Change contents that questions or answers speak of: they are meant to say the same.

    Raises
    ------
    ProjectUnsuited
        The project does not ask for pairs.
    CatalogueInvalid
        Naming the file, the line and what is wrong; nothing was added.
    CatalogueItemInUse
        An id stands for something else in a question or answer; nothing was added.
    """
    project = projects.get(services.store, project_id)
    if schema_of(project).kind != "pairing":
        raise ProjectUnsuited(
            f"project = {project_id} ({project.title}) does not ask for pairs, so it has no catalogue. Create one"
            " with `mmal project create --template image_text_pairing`"
        )
    given: list[_Given] = []
    if images is not None:
        given += _image_files(images, image_prefix) if images.is_dir() else _table(images, "image")
    if texts is not None:
        given += _lines(texts) if texts.suffix == ".txt" else _table(texts, "text")
    if not given:
        raise CatalogueInvalid(
            f"images = {images}, texts = {texts}: no item found. Give a folder or a file with items"
        )
    _check_names(given)
    ids = _ids(services, project_id, given)
    items = [NewItem(item_id, each.modality, each.content) for item_id, each in zip(ids, given, strict=True)]
    if not replace:
        for item_id, present in _rewritten(services, project_id, items).items():
            each = given[ids.index(item_id)]
            raise CatalogueItemInUse(
                f"{each.where}: id = {each.name!r} of {each.modality} stands in a question or answer for"
                f" {present[:60]!r} and here for {each.content[:60]!r}. Give what is new another id; where both are"
                " the same thing, add it with --replace"
            )
    changed = catalogue.add(services.store, project_id, items, state="buffer" if stream else "pool")
    return Added(len(items), changed)


def absorb_tasks(
    services: Services, project_id: int, schema: TaskSchema, snapshots: Sequence[TaskSnapshot], *, stream: bool
) -> int:
    """Tasks that ask nothing become items: whoever imports through Label Studio or the SDK fills the pools so.

    The tasks are deleted there once their items are stored: nobody could answer them.
    """
    given = [
        (snapshot.id, NewItem(short_id(modality, _task_name(snapshot)), modality, content))
        for snapshot in snapshots
        for modality, content in (("image", schema.image_of(snapshot.data)), ("text", schema.text_of(snapshot.data)))
        if content
    ]
    in_use = _rewritten(services, project_id, [item for _, item in given])
    items = []
    for task_id, item in given:
        item_id = f"{item.modality}:task-{task_id}" if item.item_id in in_use else item.item_id
        if item_id != item.item_id:
            words = "project %s: %s stands in a question or answer for %r; what task %s holds becomes %s"
            log.warning(words, project_id, item.item_id, in_use[item.item_id][:60], task_id, item_id)
        items.append(NewItem(item_id, item.modality, item.content))
    added = catalogue.add(services.store, project_id, items, state="buffer" if stream else "pool")
    services.label_studio.delete_tasks(project_id, [snapshot.id for snapshot in snapshots])
    return added


def short_id(kind: str, name: str, longest: int = LONGEST_ID) -> str:
    """The id of an item; of a name that is too long its hash stands for it."""
    item_id = f"{kind}:{name}"
    return item_id if len(item_id) <= longest else f"{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _task_name(snapshot: TaskSnapshot) -> str:
    given = snapshot.data.get("id")
    named = isinstance(given, str | int) and not isinstance(given, bool) and given != ""
    return str(given) if named else f"task-{snapshot.id}"


def _ids(services: Services, project_id: int, given: Sequence[_Given]) -> list[str]:
    """The ids of items. One without a name is told by its content, and by its place among those that are alike.

    An item of the project with that content is the same one: in files without ids the number of the line was the id
    once, and these items keep it.
    """
    named = {f"{each.modality}:{each.name}" for each in given if each.name}
    unnamed = {(each.modality, each.content) for each in given if not each.name}
    known = {
        modality: catalogue.ids_of(services.store, project_id, modality, {c for m, c in unnamed if m == modality})
        for modality in {m for m, _ in unnamed}
    }
    seen: Counter[tuple[str, str]] = Counter()
    ids = []
    for each in given:
        if each.name:
            ids.append(f"{each.modality}:{each.name}")
            continue
        place = seen[each.modality, each.content]
        seen[each.modality, each.content] += 1
        there = [item_id for item_id in known[each.modality].get(each.content, ()) if item_id not in named]
        digest = hashlib.sha256(each.content.encode()).hexdigest()[:16]
        new = f"{each.modality}:{digest}" + (f"-{place + 1}" if place else "")
        ids.append(there[place] if place < len(there) else new)
    return ids


def _rewritten(services: Services, project_id: int, items: Sequence[NewItem]) -> dict[str, str]:
    """Id -> present content of those that questions or answers speak of and whose content would be another."""
    in_use = _in_use(pair_queries.every(services.store, project_id))
    return catalogue.rewritten(services.store, project_id, items, in_use)


def _in_use(asked: Iterable[PairQueryRow]) -> set[int]:
    """Items that are asked about or belong to an answer, and those that an open task shows."""
    found: set[int] = set()
    for question in asked:
        if question.answer not in FORGOTTEN and question.task_id:
            found |= {question.item, question.partner, *(question.further_partners or ())}
            found |= set(question.candidates if question.answer == "open" else ())
    return found


def _image_files(folder: Path, prefix: str) -> list[_Given]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    if prefix:
        contents = [f"{prefix.rstrip('/')}/{quote(name)}" for name in names]
    else:
        with ThreadPoolExecutor(COPY_THREADS) as pool:
            contents = list(pool.map(_copy, files))
    found = zip(files, names, contents, strict=True)
    return [_Given(str(path), "image", name, content) for path, name, content in found]


def _copy(path: Path) -> str:
    try:
        return thumbnail(path.read_bytes(), side=COPY_SIDE, most_bytes=COPY_BYTES)
    except (OSError, MediaError, PairTaskInvalid) as error:
        raise CatalogueInvalid(f"{path} cannot be shown: {error} Take it out of the folder, or mend it") from None


def _lines(path: Path) -> list[_Given]:
    lines = _numbered(_read(path))
    return [_Given(f"{path}, line {n}", "text", "", line.strip()) for n, line in lines if line.strip()]


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    # Not by splitlines, which also cuts at breaks inside a text, such as U+2028.
    return enumerate(io.StringIO(text, newline=None), 1)


def _table(path: Path, modality: str) -> list[_Given]:
    items = []
    for line, row in _rows(path):
        field = next((name for name in CONTENT_FIELDS[modality] if row.get(name)), None)
        content = row.get(field) if field else None
        if not isinstance(content, str) or not content.strip():
            raise CatalogueInvalid(
                f"{path}, line {line}: no {' or '.join(CONTENT_FIELDS[modality])} with content. Every line needs one"
            )
        given = row.get("id")
        name = "" if given is None else str(given).strip()
        items.append(_Given(f"{path}, line {line}", modality, name, content.strip()))
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


def _check_names(given: Sequence[_Given]) -> None:
    seen: set[tuple[str, str]] = set()
    for each in given:
        if not each.name:
            continue
        if (each.modality, each.name) in seen:
            raise CatalogueInvalid(
                f"{each.where}: id = {each.name!r} stands twice among the {each.modality}s. Give each item its own"
            )
        if each.name in (NONE, UNSURE) or len(f"{each.modality}:{each.name}") > LONGEST_ID:
            raise CatalogueInvalid(
                f"{each.where}: id = {each.name[:80]!r} of {each.modality} cannot be used. Give 1 to"
                f" {LONGEST_ID - 6} characters"
            )
        seen.add((each.modality, each.name))


def _read(path: Path) -> str:
    try:
        # Bytes, because text mode would change line ends inside the quotes of a CSV.
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueInvalid(f"{path} cannot be read: {error}. Give the path of a UTF-8 file") from None
