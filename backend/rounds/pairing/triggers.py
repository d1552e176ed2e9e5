"""When a round of a pairing project is due."""

from __future__ import annotations

from collections.abc import Mapping

from backend.rounds.services import Services, options_of
from backend.store import catalogue, pair_queries, rounds, tasks
from backend.store.tables import Project, Round
from backend.strategies.pairing import MODALITIES

# The first questions are asked once so many items of each modality are embedded, however many there are.
FIRST_ITEMS = 128


def due_pairing(services: Services, project: Project) -> str:
    """Why a round is due now; empty when none is."""
    found = catalogue.counts(services.store, project.id, services.encoder_id)
    options = options_of(project)
    latest = rounds.of_project(services.store, project.id, "published", "empty", limit=1)
    last_number = latest[0].number if latest else 0
    asked = pair_queries.every(services.store, project.id)
    if any(q.answer == "open" and q.round_number > last_number for q in asked):
        return "questions of a round that was cut off"
    embedded = sum(found.get(m, {}).get("embedded", 0) for m in MODALITIES)
    if options.stream_mode == "item":
        return _arrival_due(found, latest[0] if latest else None, embedded)
    if options.stream_buffer:
        return _stream_due(found, options.stream_buffer)
    if not all(found.get(m, {}).get("embedded", 0) for m in MODALITIES):
        return ""
    complete = embedded == sum(_items(found[m]) for m in MODALITIES)
    if not latest:
        enough = all(found[m]["embedded"] >= FIRST_ITEMS for m in MODALITIES)
        return "first questions" if complete or enough else ""
    before, last = int(latest[0].counts.get("embedded", 0)), latest[0]
    if last.status == "published" and rounds.in_force(services.store, project) is None:
        return "no queue is in force"
    if embedded >= 2 * before or (complete and embedded > before):
        return "new items are embedded"
    answered = tasks.counts(services.store, project.id, services.encoder_id).by_label.get("label", 0)
    if last.status == "empty":
        # Nothing was left to ask. Another answer, such as one that was changed, may make room for a question.
        return "answers changed" if answered != int(last.counts.get("answered", -1)) else ""
    _, left = rounds.remaining(services.store, last.id)
    batch = int(last.counts.get("batch", 0))
    if batch - left >= options.refresh_share * batch:
        return f"{batch - left} of {batch} questions of the batch are answered"
    return ""


def _stream_due(found: Mapping[str, Mapping[str, int]], size: int) -> str:
    waiting = sum(found.get(m, {}).get("buffer", 0) for m in MODALITIES)
    ready = all(found.get(m, {}).get("embedded", 0) == _items(found.get(m, {})) for m in MODALITIES)
    return f"the buffer of the stream is full: {waiting} items" if waiting >= size and ready else ""


def _arrival_due(found: Mapping[str, Mapping[str, int]], latest: Round | None, embedded: int) -> str:
    """Items wait to be judged, and something came since some of them could not be."""
    waiting = sum(found.get(m, {}).get("buffer", 0) for m in MODALITIES)
    ready = all(found.get(m, {}).get("embedded", 0) == _items(found.get(m, {})) for m in MODALITIES)
    left = 0 if latest is None else int(latest.counts.get("waiting", 0))
    news = waiting > left or (latest is not None and embedded > int(latest.counts.get("embedded", 0)))
    return f"{waiting} items of the stream arrived" if waiting and ready and news else ""


def _items(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in ("pool", "buffer", "judged", "dropped"))
