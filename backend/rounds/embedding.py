"""Step 2, as a background job of its own: vectors for tasks that have none, by content hash.

Whatever is wrong with an image or a text marks that modality absent, with the reason; it never stops the job. Where
only the host of an image does not answer, the task is chosen by its text meanwhile, or waits where it has none, and
the image is tried again after a pause that grows.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL.Image import Image

from backend import logs
from backend.encoders import Encoder
from backend.errors import EncoderFailed, LabelStudioError, MediaError
from backend.labelstudio.image_hosts import ImageHosts
from backend.labelstudio.media import MediaFetcher
from backend.labelstudio.pictures import decode_image, pixels_in
from backend.rounds import measures
from backend.rounds.services import Services
from backend.settings import Settings
from backend.store import catalogue, notes, pauses, projects, tasks
from backend.store.encoder_queue import DEFERRED
from backend.store.tables import CatalogueItem, Task
from backend.store.vectors import VectorStore

log = logging.getLogger(__name__)


# Label Studio or a storage that is back is noticed within this time.
LONGEST_MEDIA_PAUSE = 120.0
LONGEST_ENCODER_PAUSE = 300.0


def embed_chunk(services: Services, project_id: int) -> int:
    """Embed the next tasks of a project; tells how many were taken, 0 when none is left or all that are left wait."""
    store, encoder = services.store, services.encoder_id
    limit = services.settings.encode_batch * 2
    pause = pauses.find(store, "media", project_id)
    if pause is not None and pause.until <= store.clock():
        deferred = tasks.deferred(store, project_id, limit)
        items = [] if deferred else catalogue.deferred(store, project_id, limit)
        if deferred or items:
            return _embed_tasks(services, project_id, deferred) + _embed_items(services, project_id, items)
        pauses.end(store, "media", project_id)
    batch = tasks.to_embed(store, project_id, encoder, limit)
    if batch:
        return _embed_tasks(services, project_id, batch)
    return _embed_items(services, project_id, catalogue.to_embed(store, project_id, encoder, limit))


def waiting(services: Services, project_id: int) -> bool:
    """Whether anything of the project can be embedded now."""
    store, encoder = services.store, services.encoder_id
    standstill = pauses.find(store, "encoder", project_id)
    if standstill is not None and store.clock() < standstill.until:
        return False
    pause = pauses.find(store, "media", project_id)
    if pause is not None and pause.until <= store.clock():
        return True
    return bool(tasks.to_embed(store, project_id, encoder, 1) or catalogue.to_embed(store, project_id, encoder, 1))


def stand_still(services: Services, project_id: int, error: Exception) -> None:
    """The encoder failed: leave the project alone for a while, and load the encoder anew for the next try."""
    services.drop_encoder()
    why = f"{type(error).__name__}: {error}"
    pauses.lengthen(services.store, "encoder", project_id, why, LONGEST_ENCODER_PAUSE)


def _embed_tasks(services: Services, project_id: int, batch: Sequence[Task]) -> int:
    if not batch:
        return 0
    started = time.monotonic()
    encoder, vectors = _encoder(services)
    images = _embed_images(services, vectors, [Content(t.task_id, t.image, t.task_id) for t in batch if t.image])
    texts = _embed_texts(services, vectors, [Content(t.task_id, t.text) for t in batch if t.text])
    none = Outcome()
    rows = [_row(t, encoder.id, images.get(t.task_id, none), texts.get(t.task_id, none)) for t in batch]
    _pause(services, project_id, list(images.values()), retried=batch[0].embed_order >= DEFERRED)
    tasks.embedded(services.store, project_id, rows)
    done = sum("embedded_with" in row for row in rows)
    _note_progress(services, project_id, done, time.monotonic() - started)
    return len(batch)


def _row(task: Task, encoder_id: str, image: Outcome, text: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task_id": task.task_id,
        "image": task.image,
        "text": task.text,
        "image_problem": image.problem,
        "text_problem": text.problem,
        "embed_order": random.random() + DEFERRED * image.transient,
    }
    if image.transient and not text.digest:
        return row  # without any vector it would be drawn blindly: it waits for its image
    return row | {"embedded_with": encoder_id, "image_hash": image.digest, "text_hash": text.digest}


def _embed_items(services: Services, project_id: int, batch: Sequence[CatalogueItem]) -> int:
    """The same for items of a catalogue. Each is one image or one text, so there is nothing to go by meanwhile."""
    if not batch:
        return 0
    started = time.monotonic()
    encoder, vectors = _encoder(services)
    of = {m: [Content(item.number, item.content) for item in batch if item.modality == m] for m in ("image", "text")}
    found = _embed_images(services, vectors, of["image"]) | _embed_texts(services, vectors, of["text"])
    _pause(services, project_id, list(found.values()), retried=batch[0].embed_order >= DEFERRED)
    outcomes = {item.number: (item.content, found[item.number]) for item in batch}
    catalogue.embedded(
        services.store,
        project_id,
        encoder.id,
        {n: (content, o.digest, o.problem) for n, (content, o) in outcomes.items() if not o.transient},
    )
    catalogue.defer(
        services.store, project_id, {n: (content, o.problem) for n, (content, o) in outcomes.items() if o.transient}
    )
    back = sum(bool(i.problem and found[i.number].digest) for i in batch if i.embed_order < DEFERRED)
    if back:
        # Embedded before, if without a vector, they are no news to a project that came to rest for want of them.
        projects.request_round(services.store, project_id, f"{back} items that could not be read are back")
    _note_progress(services, project_id, sum(not o.transient for o in found.values()), time.monotonic() - started)
    return len(batch)


def _encoder(services: Services) -> tuple[Encoder, VectorStore]:
    encoder = services.encoder
    vectors = services.vectors()
    assert vectors is not None, "loading the encoder notes its dims"
    return encoder, vectors


def _pause(services: Services, project_id: int, outcomes: Sequence[Outcome], *, retried: bool) -> None:
    """Noted before the tasks: what is deferred is only looked for while there is a pause.

    The first failure begins it; a retry lengthens it where not one image came.
    """
    store = services.store
    pauses.end(store, "encoder", project_id)
    failed = [outcome.problem for outcome in outcomes if outcome.transient]
    none_came = len(failed) == len(outcomes) if retried else pauses.find(store, "media", project_id) is None
    if failed and none_came:
        pause = pauses.lengthen(store, "media", project_id, failed[0], LONGEST_MEDIA_PAUSE)
        log.warning(
            "project %s: images that cannot be had for now are tried again in %.0f s: %s",
            project_id,
            pause.until - store.clock(),
            failed[0],
        )


def seconds_left(services: Services, project_id: int, counts: tasks.Counts) -> float:
    """How long the tasks without vectors will take at the recent pace; 0 when there are none or it is unknown."""
    store = services.store
    pace = float(notes.read(store, f"embedding {project_id}").get("per_second", 0.0))
    left = counts.live - counts.embedded
    left = left and left - tasks.waiting_for_images(store, project_id, services.encoder_id)
    return left / pace if pace else 0.0


def _note_progress(services: Services, project_id: int, count: int, seconds: float) -> None:
    if not count:
        return
    services.tally.count(measures.EMBEDDED, project_id, by=count)
    name = f"embedding {project_id}"
    pace = count / max(seconds, 1e-6)
    before = notes.read(services.store, name).get("per_second", pace)
    notes.write(services.store, name, {"per_second": 0.8 * before + 0.2 * pace, "at": services.store.clock()})


class Outcome(NamedTuple):
    """The key of the vector, or what is wrong with the content; transient: it may be right in a while."""

    digest: str = ""
    problem: str = ""
    transient: bool = False


class Content(NamedTuple):
    """What is embedded: the address of an image, or a text. task: whose cloud address it may be."""

    key: int
    value: str
    task: int | None = None


def _embed_images(services: Services, vectors: VectorStore, batch: Sequence[Content]) -> dict[int, Outcome]:
    outcome: dict[int, Outcome] = {}
    contents: dict[str, bytes] = {}
    digest_of: dict[int, str] = {}
    with ThreadPoolExecutor(services.settings.fetch_threads) as pool:
        fetch = logs.carried(fetcher(services.media, services.image_hosts))
        for content, (data, failure) in zip(batch, pool.map(fetch, batch), strict=True):
            if data is None:
                outcome[content.key] = failure
            else:
                digest = hashlib.sha256(data).hexdigest()
                contents[digest], digest_of[content.key] = data, digest
    fresh = {digest: contents[digest] for digest in contents.keys() - vectors.known("image", contents)}
    problems: dict[str, str] = {}
    for decoded in _decoded(fresh, services.settings, problems):
        problems |= _encode("image", services.encoder.encode_images, vectors, decoded, services.settings.encode_batch)
    for key, digest in digest_of.items():
        problem = problems.get(digest, "")
        outcome[key] = Outcome(problem=problem) if problem else Outcome(digest)
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


def _embed_texts(services: Services, vectors: VectorStore, batch: Sequence[Content]) -> dict[int, Outcome]:
    digests = {content.key: hashlib.sha256(content.value.encode()).hexdigest() for content in batch}
    texts = {digests[content.key]: content.value for content in batch}
    fresh = {d: texts[d] for d in texts.keys() - vectors.known("text", texts)}
    problems = _encode("text", services.encoder.encode_texts, vectors, fresh, services.settings.encode_batch)
    return {
        key: Outcome(problem=problems[digest]) if digest in problems else Outcome(digest)
        for key, digest in digests.items()
    }


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


def fetcher(media: MediaFetcher, hosts: ImageHosts) -> Callable[[Content], tuple[bytes | None, Outcome]]:
    """Fetches images, or tells what is wrong; hosts that fail in a row are left alone for a while."""

    def fetch(content: Content) -> tuple[bytes | None, Outcome]:
        left_alone = hosts.why_not(content.value)
        if left_alone:
            return None, Outcome(problem=left_alone, transient=True)
        try:
            data = media.fetch(content.value, content.task)
        except (MediaError, LabelStudioError) as error:
            # Label Studio's own errors: a personal token could not be renewed.
            transient = isinstance(error, LabelStudioError) or error.transient
            if transient:
                hosts.failed(content.value, str(error))
            else:
                hosts.answered(content.value)
            return None, Outcome(problem=str(error), transient=transient)
        hosts.answered(content.value)
        return data, Outcome()

    return fetch
