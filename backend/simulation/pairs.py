"""Labelled image-text pairs on disk: one folder with ``pairs.jsonl`` and the pictures it names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from backend.errors import DatasetInvalid

if TYPE_CHECKING:
    from backend.encoders import Encoder

PAIRS_FILE = "pairs.jsonl"
LABELS_FILE = "labels.txt"
_CHUNK = 64


@dataclass(frozen=True)
class Pairs:
    """A labelled set of image-text pairs; row i of everything is one item.

    Attributes
    ----------
    ids : stable names of the items
    images : picture files
    texts : captions
    labels : (n,) int64 index into ``classes``
    classes : label names
    groups : (n,) int64; equal for items with the same text (case and spaces aside), which never go to both
        sides of a split
    holdout : (n,) bool, the set's own test side; None where it has none
    """

    ids: Sequence[str]
    images: Sequence[Path]
    texts: Sequence[str]
    labels: np.ndarray
    classes: Sequence[str]
    groups: np.ndarray
    holdout: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids)


def text_key(text: str) -> str:
    """Return what makes two captions the same text: letters only, case, digits and punctuation aside."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower())) or text.strip().lower()


def load_dataset(folder: Path) -> Pairs:
    """Read a folder with ``pairs.jsonl`` (id, image, text, label, optional holdout) and ``labels.txt``.

    Raises
    ------
    DatasetInvalid
        A file is missing, or a row names an unknown label or picture.
    """
    try:
        lines = (folder / PAIRS_FILE).read_text(encoding="utf-8").splitlines()
        classes = (folder / LABELS_FILE).read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DatasetInvalid(f"{folder} is no data set: {error}. Build it again.") from error
    classes = [name for name in classes if name]
    index = {name: position for position, name in enumerate(classes)}
    for row in rows:
        if row["label"] not in index or not (folder / row["image"]).is_file():
            raise DatasetInvalid(f"{folder}: item {row['id']} has an unknown label or no picture. Build it again.")
    keys: dict[str, int] = {}
    groups = [keys.setdefault(" ".join(row["text"].casefold().split()), len(keys)) for row in rows]
    marked = [row.get("holdout") for row in rows]
    return Pairs(
        ids=[row["id"] for row in rows],
        images=[folder / row["image"] for row in rows],
        texts=[row["text"] for row in rows],
        labels=np.array([index[row["label"]] for row in rows], dtype=np.int64),
        classes=classes,
        groups=np.array(groups, dtype=np.int64),
        holdout=None if None in marked else np.array(marked, dtype=bool),
    )


def write_pairs(folder: Path, rows: Iterable[Mapping[str, object]], classes: Sequence[str]) -> None:
    """Write ``labels.txt`` and ``pairs.jsonl``; the pictures are already there."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / LABELS_FILE).write_text("\n".join(classes) + "\n", encoding="utf-8")
    (folder / PAIRS_FILE).write_text("".join(lines), encoding="utf-8")


def picture_on_white(path: Path, longest_side: int) -> Image.Image:
    """Return a picture as RGB on white, shrunk so that its longest side fits."""
    with Image.open(path) as image:
        return on_white(image.convert("RGBA"), longest_side)


def on_white(layer: Image.Image, longest_side: int) -> Image.Image:
    """Return an RGBA picture as RGB on white, shrunk so that its longest side fits."""
    flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    flat.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return flat


def embed_dataset(pairs: Pairs, encoder: Encoder | str, cache_dir: Path) -> dict[str, np.ndarray]:
    """Return modality -> (n, D_m) float32 unit rows, read from the cache when the same items were embedded before.

    Parameters
    ----------
    encoder
        An encoder, or a value of MMAL_ENCODER: then it is loaded only when the cache lacks the rows.
    """
    from backend.encoders import encoder_id, load_encoder

    name = encoder_id(encoder) if isinstance(encoder, str) else encoder.id
    path = cache_dir / "embeddings" / f"{name}-{_content_digest(pairs)[:20]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return {modality: stored[modality] for modality in stored.files}
    loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
    rows = {
        "image": np.concatenate(
            [_embed_images(loaded, pairs.images[start : start + _CHUNK]) for start in _chunks(len(pairs))]
        ),
        "text": loaded.encode_texts(list(pairs.texts)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, **rows)
    unfinished.replace(path)
    return rows


def _chunks(count: int) -> Iterable[int]:
    return tqdm(range(0, count, _CHUNK), desc="embedding", unit_scale=_CHUNK, disable=None)


def _embed_images(encoder: Encoder, paths: Sequence[Path]) -> np.ndarray:
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return encoder.encode_images(images)


def _content_digest(pairs: Pairs) -> str:
    digest = hashlib.sha256()
    for path, text in zip(pairs.images, pairs.texts, strict=True):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()
