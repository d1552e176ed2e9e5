"""Tasks that ask for a pair: one image and captions to choose from, or one caption and images to choose from.

The option values are the items' own ids, never their places, so an answer keeps its meaning whatever the order.
Label Studio cleans the HTML of an option and takes `data:` out of every `src` there; a background survives, which
is why thumbnails are backgrounds (tests/live/test_pair_templates.py).
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from backend.errors import PairTaskInvalid
from backend.json_reading import UNSTORABLE, storable
from backend.labelstudio.pictures import decode_image
from backend.labelstudio.schema import CANDIDATES_KEY, REASON_KEY, TaskSchema

NONE = "__none__"
"""Answer: none of the candidates belongs to the query."""

UNSURE = "__unsure__"
"""Answer: the annotator cannot tell, or the query is broken."""

Modality = Literal["image", "text"]
MAX_TASK_BYTES = 256 * 1024
SHOWN_CHARACTERS = 400
_THUMBNAIL = re.compile(r"data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/]+=*")
_QUALITIES = (75, 60, 45, 30, 15)
_SMALLEST_SIDE = 32
# Without these, keys 9 and 0 would wander with the number of candidates.
_EXITS = (
    {"value": NONE, "html": "None of these", "hotkey": "9"},
    {"value": UNSURE, "html": "Cannot tell", "hotkey": "0"},
)
_CANDIDATE_KEYS = "12345678"


@dataclass(frozen=True)
class PairItem:
    """An item of the catalogue as a task shows it.

    content : the words of a text; of an image its address where it is the query, its `thumbnail` where it is a
        candidate
    """

    id: str
    content: str


def other(modality: Modality) -> Modality:
    """The modality of the candidates for a query of this one."""
    return "text" if modality == "image" else "image"


def query_key(round_number: int, modality: Modality, item_id: str, purpose: str = "query") -> str:
    """Name of a query, the same whenever the same round asks the same: tells whether its task was made already."""
    return f"{round_number}/{purpose}/{modality}/{item_id}"


def thumbnail(data: bytes, *, side: int = 160, most_bytes: int = 6000) -> str:
    """A picture as a small `data:` address (WebP): as sharp as `most_bytes` before base64 allow.

    The longer side has at most `side` pixels, fewer when no quality fits. With a larger side and more bytes it
    also makes the query image of a catalogue whose files no address leads to.

    Raises
    ------
    MediaError
        The bytes are no picture that can be decoded within the usual limits.
    PairTaskInvalid
        Not even the smallest picture fits into `most_bytes`.
    """
    picture = decode_image(data)
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, method=4)
            if buffer.tell() <= most_bytes:
                return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        if side <= _SMALLEST_SIDE:
            raise PairTaskInvalid(f"most_bytes = {most_bytes} is too little for any thumbnail: give 1000 or more")
        side = max(_SMALLEST_SIDE, side * 3 // 4)


def query_task(
    schema: TaskSchema,
    *,
    modality: Modality,
    query: PairItem,
    candidates: Sequence[PairItem],
    similarities: Sequence[float],
    model_version: str,
    round_number: int,
    purpose: str = "query",
    reason: str = "",
) -> dict[str, Any]:
    """The data of one task: the query, its candidates in an order that says nothing, and what to learn from it.

    Parameters
    ----------
    modality : what the query is; the candidates are of the other one
    candidates, similarities : best first, as the model sees it; kept so that the rank of the truth is known later
    purpose : for the caller, such as "query", "audit" or "conflict"; part of the key
    reason : shown to the annotator; never names an answer

    Raises
    ------
    PairTaskInvalid
        Naming the field: no such direction in the form, ids that are empty, doubled or reserved, numbers that do
        not fit, a task of more than MAX_TASK_BYTES.
    """
    if modality not in schema.directions:
        raise PairTaskInvalid(
            f"query_modality = {modality!r}: this project's form asks about {' and '.join(schema.directions) or 'no'}"
            " items only. Use a template whose form shows this direction"
        )
    _check_candidates(query, candidates, similarities)
    key = query_key(round_number, modality, query.id, purpose)
    shown = sorted(candidates, key=lambda item: hashlib.sha256(f"{key}\0{item.id}".encode()).digest())
    data: dict[str, Any] = {field: "" for field in (schema.image_key, schema.text_key) if field is not None}
    data[(schema.image_key if modality == "image" else schema.text_key) or ""] = _shown_query(schema, modality, query)
    data |= {
        CANDIDATES_KEY: [
            *(_option(item, place, other(modality)) for place, item in enumerate(shown)),
            *(dict(exit_) for exit_ in _EXITS),
        ],
        "query_modality": modality,
        "query_id": query.id,
        "query_key": key,
        "purpose": purpose,
        "candidate_ids": [item.id for item in candidates],
        "candidate_sims": [round(float(similarity), 6) for similarity in similarities],
        "model_version": model_version,
        "round": round_number,
        REASON_KEY: storable(reason),
    }
    size = len(json.dumps(data, ensure_ascii=False).encode())
    if size > MAX_TASK_BYTES:
        raise PairTaskInvalid(
            f"{CANDIDATES_KEY}: the task of query {query.id!r} has {size} bytes, at most {MAX_TASK_BYTES} are sent."
            " Show fewer candidates or smaller thumbnails, or shorten the query"
        )
    return data


def _check_candidates(query: PairItem, candidates: Sequence[PairItem], similarities: Sequence[float]) -> None:
    ids = [item.id for item in candidates]
    if not ids:
        raise PairTaskInvalid(f"candidate_ids = []: query {query.id!r} has nothing to choose from. Give at least one")
    for field, identifier in (("query_id", query.id), *(("candidate_ids", identifier) for identifier in ids)):
        if not isinstance(identifier, str) or not identifier.strip() or UNSTORABLE.search(identifier):
            raise PairTaskInvalid(f"{field} = {identifier!r}: give every item an id of printable characters")
        if identifier in (NONE, UNSURE):
            raise PairTaskInvalid(f"{field} = {identifier!r} stands for an answer: give the item another id")
    doubled = sorted({identifier for identifier in ids if ids.count(identifier) > 1})
    if doubled:
        raise PairTaskInvalid(f"candidate_ids holds {doubled[0]!r} twice: list every candidate once")
    if len(similarities) != len(ids) or not all(math.isfinite(similarity) for similarity in similarities):
        raise PairTaskInvalid(
            f"candidate_sims = {list(similarities)!r}: give one finite number for each of the {len(ids)} candidates"
        )


def _shown_query(schema: TaskSchema, modality: Modality, query: PairItem) -> str:
    content = storable(query.content)
    if not content.strip():
        raise PairTaskInvalid(f"query {query.id!r} has no content: leave it out of the round")
    # A HyperText pane would read "<" as markup.
    return html.escape(content) if modality == "text" and schema.text_is_html else content


def _option(item: PairItem, place: int, modality: Modality) -> dict[str, str]:
    option = {"value": item.id, "html": _shown(item, modality)}
    if "$" in item.id:
        # Label Studio fills "$word" in a value with the task's field of that name, yet never in an alias.
        option["alias"] = item.id
    if place < len(_CANDIDATE_KEYS):
        option["hotkey"] = _CANDIDATE_KEYS[place]
    return option


def _shown(item: PairItem, modality: Modality) -> str:
    if modality == "image":
        if not _THUMBNAIL.fullmatch(item.content):
            raise PairTaskInvalid(
                f"candidate {item.id!r} = {item.content[:40]!r}: the address of an image is not resolved inside an"
                " option. Give its thumbnail(...)"
            )
        return f'<span class="al-thumb" role="img" style="background-image:url(\'{item.content}\')"></span>'
    words = storable(item.content).strip()
    if not words:
        raise PairTaskInvalid(f"candidate {item.id!r} has no words: leave it out")
    if len(words) > SHOWN_CHARACTERS:
        words = words[: SHOWN_CHARACTERS - 1].rstrip() + "…"
    return f'<span class="al-caption">{html.escape(words)}</span>'
