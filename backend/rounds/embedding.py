"""Step 2, as a background job of its own: vectors for tasks that have none, by content hash.

Whatever is wrong with an image or a text marks that modality absent, with the reason; it never stops the job.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL.Image import Image

from backend import logs
from backend.errors import EncoderFailed, MediaError
from backend.labelstudio.media import MediaFetcher
from backend.labelstudio.pictures import decode_image, pixels_in
from backend.rounds import measures
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import catalogue, notes, tasks
from backend.store.vectors import VectorStore

log = logging.getLogger(__name__)


def embed_chunk(services: Services, project_id: int) -> int:
    """Embed the next tasks of a project; tells how many were taken, 0 when none is left."""
    batch = tasks.to_embed(services.store, project_id, services.encoder_id, services.settings.encode_batch * 2)
    if not batch:
        return _embed_items(services, project_id)
    encoder = services.encoder
    vectors = services.vectors()
    assert vectors is not None, "loading the encoder notes its dims"
    started = time.monotonic()
    images = _embed_images(services, vectors, [Content(t.task_id, t.image, t.task_id) for t in batch if t.image])
    texts = _embed_texts(services, vectors, [Content(t.task_id, t.text) for t in batch if t.text])
    tasks.embedded(
        services.store,
        project_id,
        [
            {
                "task_id": t.task_id,
                "image": t.image,
                "text": t.text,
                "embedded_with": encoder.id,
                "image_hash": images.get(t.task_id, ("", ""))[0],
                "image_problem": images.get(t.task_id, ("", ""))[1],
                "text_hash": texts.get(t.task_id, ("", ""))[0],
                "text_problem": texts.get(t.task_id, ("", ""))[1],
            }
            for t in batch
        ],
    )
    services.tally.count(measures.EMBEDDED, project_id, by=len(batch))
    _note_progress(services, project_id, len(batch), time.monotonic() - started)
    return len(batch)


def waiting(services: Services, project_id: int) -> bool:
    """Whether anything of the project has no vector yet."""
    store, encoder = services.store, services.encoder_id
    return bool(tasks.to_embed(store, project_id, encoder, 1) or catalogue.to_embed(store, project_id, encoder, 1))


def _embed_items(services: Services, project_id: int) -> int:
    """The same for the next items of a catalogue."""
    batch = catalogue.to_embed(services.store, project_id, services.encoder_id, services.settings.encode_batch * 2)
    if not batch:
        return 0
    encoder = services.encoder
    vectors = services.vectors()
    assert vectors is not None, "loading the encoder notes its dims"
    of = {m: [Content(item.number, item.content) for item in batch if item.modality == m] for m in ("image", "text")}
    found = _embed_images(services, vectors, of["image"]) | _embed_texts(services, vectors, of["text"])
    outcomes = {item.number: (item.content, *found[item.number]) for item in batch}
    catalogue.embedded(services.store, project_id, encoder.id, outcomes)
    services.tally.count(measures.EMBEDDED, project_id, by=len(batch))
    return len(batch)


def progress(services: Services, project_id: int) -> dict[str, float]:
    """Tasks embedded and in all, and the seconds the rest will take at the recent pace (0 when unknown)."""
    counts = tasks.counts(services.store, project_id, services.encoder_id)
    pace = float(notes.read(services.store, f"embedding {project_id}").get("per_second", 0.0))
    left = counts.live - counts.embedded
    return {"embedded": counts.embedded, "total": counts.live, "seconds_left": left / pace if pace and left else 0.0}


def _note_progress(services: Services, project_id: int, count: int, seconds: float) -> None:
    name = f"embedding {project_id}"
    pace = count / max(seconds, 1e-6)
    before = notes.read(services.store, name).get("per_second", pace)
    notes.write(services.store, name, {"per_second": 0.8 * before + 0.2 * pace, "at": services.store.clock()})


Outcome = dict[int, tuple[str, str]]
"""key -> (content hash, problem); one of the two is empty."""


class Content(NamedTuple):
    """What is embedded: the address of an image, or a text. task: whose cloud address it may be."""

    key: int
    value: str
    task: int | None = None


def _embed_images(services: Services, vectors: VectorStore, batch: Sequence[Content]) -> Outcome:
    outcome: Outcome = {}
    contents: dict[str, bytes] = {}
    digest_of: dict[int, str] = {}
    with ThreadPoolExecutor(services.settings.fetch_threads) as pool:
        fetch = logs.carried(_fetcher(services.media))
        for content, (data, problem) in zip(batch, pool.map(fetch, batch), strict=True):
            if data is None:
                outcome[content.key] = ("", problem)
            else:
                digest = hashlib.sha256(data).hexdigest()
                contents[digest], digest_of[content.key] = data, digest
    fresh = {digest: contents[digest] for digest in contents.keys() - vectors.known("image", contents)}
    problems: dict[str, str] = {}
    for decoded in _decoded(fresh, services.settings, problems):
        problems |= _encode("image", services.encoder.encode_images, vectors, decoded, services.settings.encode_batch)
    for key, digest in digest_of.items():
        problem = problems.get(digest, "")
        outcome[key] = ("", problem) if problem else (digest, "")
    return outcome


def _decoded(contents: dict[str, bytes], settings: Settings, problems: dict[str, str]) -> Iterator[dict[str, Image]]:
    """Decode in parallel, a portion at a time: many large pictures at once would fill the memory."""

    def decode(data: bytes) -> tuple[Image | None, str]:
        try:
            return decode_image(data, settings.max_image_pixels), ""
        except MediaError as error:
            return None, str(error)

    with ThreadPoolExecutor(settings.fetch_threads) as pool:
        for portion in _portions(contents, settings.max_image_pixels):
            decoded: dict[str, Image] = {}
            for digest, (image, problem) in zip(portion, pool.map(decode, portion.values()), strict=True):
                if image is None:
                    problems[digest] = problem
                else:
                    decoded[digest] = image
            yield decoded


def _portions(contents: dict[str, bytes], max_pixels: int) -> Iterator[dict[str, bytes]]:
    """Cut into portions of hardly more pixels than one picture may have."""
    portion: dict[str, bytes] = {}
    pixels = 0
    for digest, data in contents.items():
        portion[digest] = data
        pixels += pixels_in(data)
        if pixels >= max_pixels:
            yield portion
            portion, pixels = {}, 0
    if portion:
        yield portion


def _embed_texts(services: Services, vectors: VectorStore, batch: Sequence[Content]) -> Outcome:
    digests = {content.key: hashlib.sha256(content.value.encode()).hexdigest() for content in batch}
    texts = {digests[content.key]: content.value for content in batch}
    fresh = {d: texts[d] for d in texts.keys() - vectors.known("text", texts)}
    problems = _encode("text", services.encoder.encode_texts, vectors, fresh, services.settings.encode_batch)
    return {key: ("", problems[digest]) if digest in problems else (digest, "") for key, digest in digests.items()}


def _encode(
    modality: str,
    encode: Callable[[list[Any]], np.ndarray],
    vectors: VectorStore,
    items: dict[str, Any],
    batch_size: int,
) -> dict[str, str]:
    """Encode and store; where a batch fails, item by item, so that one bad item costs only itself."""
    problems: dict[str, str] = {}
    digests = sorted(items)
    for start in range(0, len(digests), batch_size):
        chunk = digests[start : start + batch_size]
        try:
            vectors.append(modality, chunk, encode([items[d] for d in chunk]))
        except EncoderFailed as error:
            if len(chunk) == 1:
                problems[chunk[0]] = str(error)
            else:
                problems |= _encode(modality, encode, vectors, {d: items[d] for d in chunk}, max(1, len(chunk) // 2))
    return problems


def _fetcher(media: MediaFetcher) -> Callable[[Content], tuple[bytes | None, str]]:
    def fetch(content: Content) -> tuple[bytes | None, str]:
        try:
            return media.fetch(content.value, content.task), ""
        except MediaError as error:
            return None, str(error)

    return fetch
