"""When a round of a pairing project is due."""

from __future__ import annotations

from collections.abc import Mapping

from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.round import settled_pairs
from backend.rounds.services import Services, options_of
from backend.store import catalogue, pair_queries, rounds
from backend.store.catalogue import Held
from backend.store.tables import Project, Round
from backend.strategies.pairing import MODALITIES

# The first questions are asked once so many items of each modality are embedded, however many there are.
FIRST_ITEMS = 128
# Items of a stream are judged once all that arrived are embedded, or so many of them.
ARRIVALS = 128
# Where nothing else makes a round, images that could not be fetched as candidates are tried again after so long.
RETRY_SECONDS = 3600.0


def due_pairing(services: Services, project: Project) -> str:
    """Why a round is due now; empty when none is."""
    options = options_of(project)
    recent = rounds.of_project(services.store, project.id, "published", "empty", limit=1)
    latest = recent[0] if recent else None
    if pair_queries.left_open(services.store, project.id, latest.number if latest else 0):
        return "questions of a round that was cut off"
    held = catalogue.held(services.store, project.id, services.encoder_id)
    if options.streaming:
        settled = {key: there for key, there in held.items() if key[1] != "buffer"}
        arrived = "" if _awaited(services, project, settled) else _stream_due(held, latest, options)
        why = arrived or _contradiction_due(services, project, latest, options)
    else:
        why = _pool_due(services, project, held, latest)
    return why or _retry_due(services, latest)


def _awaited(services: Services, project: Project, held: Mapping[tuple[str, str], Held]) -> int:
    """How many of these items are about to be embedded: not those whose host does not answer."""
    lacking = sum(there.items - there.embedded for there in held.values())
    if not lacking:
        return 0
    states = {state for _, state in held}
    return lacking - catalogue.waiting_for_images(services.store, project.id, services.encoder_id, *states)


def _pool_due(
    services: Services, project: Project, held: Mapping[tuple[str, str], Held], latest: Round | None
) -> str:
    of = {m: sum(there.embedded for (modality, _), there in held.items() if modality == m) for m in MODALITIES}
    if not all(of.values()):
        return ""
    embedded = sum(of.values())
    complete = not _awaited(services, project, held)
    if latest is None:
        enough = all(count >= FIRST_ITEMS for count in of.values())
        return "first questions" if complete or enough else ""
    before = int(latest.counts.get("embedded", 0))
    if latest.status == "published" and rounds.in_force(services.store, project) is None:
        return "no queue is in force"
    if embedded >= 2 * before or (complete and embedded > before):
        return "new items are embedded"
    return _answers_due(services, latest, options_of(project))


def _answers_due(services: Services, latest: Round, options: ProjectOptions) -> str:
    """The batch is answered; where the round asked nothing new, any answer came, went or says something else."""
    if _at_rest(latest):
        changed = pair_queries.digest(services.store, latest.project_id) != latest.counts.get("answers")
        return "answers changed" if changed else ""
    batch, (_, left) = int(latest.counts["batch"]), rounds.remaining(services.store, latest.id)
    enough = batch - left >= options.refresh_share * batch
    return f"{batch - left} of {batch} questions of the batch are answered" if enough else ""


def _at_rest(latest: Round) -> bool:
    """The round found nothing to ask, or older questions only."""
    return latest.status == "empty" or not latest.counts.get("batch")


def _contradiction_due(services: Services, project: Project, latest: Round | None, options: ProjectOptions) -> str:
    """What arrives makes the rounds of a stream, and so do answers that contradict one another."""
    if latest is None or not _answers_due(services, latest, options):
        return ""
    asked = pair_queries.every(services.store, project.id)
    settled = settled_pairs(services, project.id, asked, project.round_number + 1, options)
    return "answers contradict one another" if any(not c.waits for c in settled.conflicts) else ""


def _retry_due(services: Services, latest: Round | None) -> str:
    if latest is None or not _at_rest(latest) or services.store.clock() - latest.finished_at < RETRY_SECONDS:
        return ""
    unasked = pair_queries.unasked(services.store, latest.project_id)
    return "questions that could not be shown are tried again" if unasked else ""


def _stream_due(held: Mapping[tuple[str, str], Held], latest: Round | None, options: ProjectOptions) -> str:
    """Enough that waits is embedded. While items keep arriving some never are, so not all of them have to be."""
    waiting = [there for (_, state), there in held.items() if state == "buffer"]
    ready = sum(there.embedded for there in waiting)
    if not ready:
        return ""
    if options.stream_mode != "item":
        return f"the buffer of the stream is full: {ready} items" if ready >= options.stream_buffer else ""
    if ready < min(ARRIVALS, sum(there.items for there in waiting)):
        return ""
    if latest is None:
        return f"{ready} items of the stream arrived"
    # Something came since some of them could not be judged.
    embedded = sum(there.embedded for there in held.values())
    news = ready > int(latest.counts.get("waiting", 0)) or embedded > int(latest.counts.get("embedded", 0))
    return f"{ready} items of the stream arrived" if news else ""
