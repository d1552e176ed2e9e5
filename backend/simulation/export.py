"""A JSON export of Label Studio as a labelled set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from backend.encoders import Encoder, encoder_id, load_encoder
from backend.errors import ExportInvalid, MediaError
from backend.labelstudio.annotations import read_answer, resolve_label
from backend.labelstudio.pictures import decode_image
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from backend.simulation.labelled_set import LabelledSet, own_set
from backend.simulation.splits import near_duplicates, same_content

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_CHUNK = 64


class Fetcher(Protocol):
    """Gets the bytes of a task's picture; raises MediaError."""

    def fetch(self, uri: str, task_id: int | None = None) -> bytes: ...


@dataclass(frozen=True)
class ExportedTask:
    """A task with the labels its annotators agree on, one or several; empty where it lacks the modality."""

    task_id: int
    image: str
    text: str
    labels: tuple[str, ...]


def export_set(
    path: Path, label_config: str | None, fetcher: Fetcher, encoder: str, cache_dir: Path, notes: Sequence[str] = ()
) -> LabelledSet:
    """The labelled tasks of an export, embedded (once: the cache keeps the vectors of the same contents).

    label_config: XML; without it fields and answers are taken from what the tasks look like.

    Raises
    ------
    ExportInvalid, LabelConfigUnsupported, ReplayInvalid
    """
    schema, tasks = read_export(path, label_config)
    features, unread = _embedded(tasks, schema.modalities, fetcher, encoder, cache_dir)
    classes = list(schema.choices)
    ticked = np.zeros((len(tasks), len(classes)), dtype=np.int8)
    for place, task in enumerate(tasks):
        ticked[place, [classes.index(label) for label in task.labels]] = 1
    told = list(notes)
    if unread:
        told.append(f"{unread} pictures of {len(tasks)} could not be read and count as absent.")
    texts, images = [task.text for task in tasks], [task.image for task in tasks]
    return own_set(
        path.stem,
        features,
        ticked if schema.multi_label else ticked.argmax(axis=1),
        classes,
        {"random": same_content(texts, images), "grouped": near_duplicates(texts, images)},
        told,
    )


def read_export(path: Path, label_config: str | None = None) -> tuple[TaskSchema, list[ExportedTask]]:
    """What the tasks ask, and those that have a label.

    Raises
    ------
    ExportInvalid
        It is no JSON export, or nothing in it is labelled.
    LabelConfigUnsupported
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        tasks = [task for task in raw if isinstance(task["data"], dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportInvalid(
            f"{path} is no export that can be read ({error}); export the project as JSON (not JSON-MIN, not CSV)"
        ) from error
    schema = TaskSchema.from_label_config(label_config) if label_config else _guessed(path, tasks)
    found = []
    for task in tasks:
        answers = [read_answer(schema, annotation) for annotation in task.get("annotations") or []]
        agreed = resolve_label(answers, multi_label=schema.multi_label)
        # With several to tick, none of them is an answer too.
        if agreed.kind == "label" and agreed.choices is not None and (agreed.choices or schema.multi_label):
            image, text = schema.image_of(task["data"]), schema.text_of(task["data"])
            found.append(ExportedTask(int(task["id"]), image or "", text or "", agreed.choices))
    if not found:
        raise ExportInvalid(f"{path}: none of its {len(tasks)} tasks has a label; was it exported with annotations?")
    return schema, found


def _guessed(path: Path, tasks: Sequence[Mapping[str, Any]]) -> TaskSchema:
    """A schema from the tasks alone: the one Choices control, and one field each for image and text."""
    regions = [
        region
        for task in tasks
        for annotation in task.get("annotations") or []
        for region in annotation.get("result") or []
        if region.get("type") == "choices"
    ]
    controls = sorted({str(region.get("from_name")) for region in regions})
    if len(controls) != 1:
        raise ExportInvalid(
            f"{path} has {len(controls)} controls with choices ({', '.join(controls) or 'none'}); give a label config"
            " that has the one to learn alone with --label-config"
        )
    answers = [tuple(region.get("value", {}).get("choices") or ()) for region in regions]
    fields: dict[str, Counter[str]] = {"image": Counter(), "text": Counter()}
    for task in tasks:
        for key, value in task["data"].items():
            if isinstance(value, str) and value.strip() and key != REASON_KEY:
                fields["image" if _is_picture(value) else "text"][key] += 1
    image, text = (_only(path, kind, fields[kind]) for kind in ("image", "text"))
    if image is None and text is None:
        raise ExportInvalid(f"{path}: no field of its tasks looks like a text or a picture's address")
    return TaskSchema(
        image,
        text,
        controls[0],
        str(regions[0].get("to_name")),
        tuple(sorted({choice for answer in answers for choice in answer})),
        any(len(answer) > 1 for answer in answers),
        "",
    )


def _only(path: Path, kind: str, fields: Counter[str]) -> str | None:
    if len(fields) > 1:
        raise ExportInvalid(
            f"{path}: the fields {', '.join(sorted(fields))} all look like {kind}; give the label config with"
            " --label-config, it says which one annotators saw"
        )
    return next(iter(fields), None)


def _is_picture(value: str) -> bool:
    address = value.strip().lower()
    if address.startswith(("data:image", "/data/", "s3://", "gs://", "azure-blob://", "upload/", "/upload/")):
        return True
    return " " not in address and address.partition("?")[0].endswith(_PICTURES)


def _embedded(
    tasks: Sequence[ExportedTask], modalities: Sequence[str], fetcher: Fetcher, encoder: str, cache_dir: Path
) -> tuple[dict[str, np.ndarray], int]:
    """(modality -> (n, D_m) rows, how many pictures could not be read)."""
    digest = hashlib.sha256(json.dumps([[task.task_id, task.image, task.text] for task in tasks]).encode())
    path = cache_dir / "embeddings" / f"{encoder_id(encoder)}-export-{digest.hexdigest()[:20]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return {modality: stored[modality] for modality in modalities}, int(stored["unread"])
    loaded = load_encoder(encoder)
    rows: dict[str, np.ndarray] = {}
    unread = 0
    if "image" in modalities:
        rows["image"], unread = _images(tasks, fetcher, loaded)
    if "text" in modalities:
        rows["text"] = np.zeros((len(tasks), loaded.dims["text"]), np.float32)
        there = np.array([i for i, task in enumerate(tasks) if task.text], dtype=np.int64)
        if len(there):
            rows["text"][there] = loaded.encode_texts([tasks[i].text for i in there])
    if unread == 0:
        # Where pictures are missing, another try may find them.
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, unread=np.array(unread), **rows)  # type: ignore[arg-type]
    return rows, unread


def _images(tasks: Sequence[ExportedTask], fetcher: Fetcher, encoder: Encoder) -> tuple[np.ndarray, int]:
    out = np.zeros((len(tasks), encoder.dims["image"]), np.float32)
    unread = 0
    for start in tqdm(range(0, len(tasks), _CHUNK), desc="pictures", unit_scale=_CHUNK, disable=None):
        pictures, places = [], []
        for place in range(start, min(start + _CHUNK, len(tasks))):
            if not tasks[place].image:
                continue
            try:
                pictures.append(decode_image(fetcher.fetch(tasks[place].image, tasks[place].task_id)))
                places.append(place)
            except MediaError:
                unread += 1
        if pictures:
            out[places] = encoder.encode_images(pictures)
    return out, unread
