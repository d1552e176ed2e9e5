"""One round of a pairing project: settle -> fit -> choose -> ask -> publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backend.labelstudio.schema import TaskSchema
from backend.learners.projection import ProjectionHead
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.arriving import JUDGED, WAITING, judge_arrivals
from backend.rounds.pairing.asking import ask, note_questions, withdraw
from backend.rounds.pairing.choosing import Choice, PairingArrays, choose_questions, fit_projection, load_catalogue
from backend.rounds.pairing.settling import CONFLICT, LONGEST_REST, Settled, settle, spoken_of_twice
from backend.rounds.publishing import publish
from backend.rounds.selection import Place
from backend.rounds.services import Services, options_of
from backend.store import catalogue, notes, pair_queries, projects, rounds
from backend.store.tables import PairQueryRow, Round
from backend.strategies.pairing import MODALITIES

if TYPE_CHECKING:
    from backend.rounds.pipeline import Progress


@dataclass(frozen=True)
class _Standing:
    """What a round chooses from: the embedded items, the model, all questions so far and what they come to.

    unfinished: how many questions of rounds that were cut off are part of the batch.
    """

    options: ProjectOptions
    arrays: PairingArrays
    head: ProjectionHead
    settled: Settled
    asked: Sequence[PairQueryRow]
    unfinished: int

    @property
    def places(self) -> int:
        """Places of the batch that are left."""
        return max(0, self.options.batch_size - self.unfinished)


def run_pairing_round(services: Services, opened: Round, schema: TaskSchema, progress: Progress) -> None:
    """Everything between the sync of a round and its end."""
    store, project_id = services.store, opened.project_id
    options = options_of(opened)
    # Counted before they are read: what is embedded or answered in between is news to the next round at worst.
    embedded = sum(there.embedded for there in catalogue.held(store, project_id, services.encoder_id).values())
    answers = pair_queries.digest(store, project_id)
    asked = pair_queries.every(store, project_id)
    settled = settled_pairs(services, project_id, asked, opened.number, options)
    arrays = load_catalogue(services, project_id, settled)
    if options.stream_buffer and options.stream_mode == "buffer":
        arrays = arrays.buffered(options.stream_buffer, settled)
    known = arrays.known(settled)
    progress.counts |= {
        "embedded": embedded,
        "answers": answers,
        "labels": sum(q.answer not in ("open", "withdrawn", "deleted") for q in asked),
        "pairs": len(settled.pairs),
        "conflicts": len(settled.conflicts),
        "pool": sum(len(numbers) for numbers in arrays.numbers.values()) - 2 * len(known),
    }
    progress("synced")

    head = fit_projection(services, arrays, known, options, opened.seed)
    path = rounds.save_head(store, opened, *head.state())
    rounds.reach(store, opened.id, "saved", head=str(path.relative_to(store.data_dir)))
    progress("fitted")

    unfinished = len(_unfinished(services, project_id, asked, settled, options))
    standing = _Standing(options, arrays, head, settled, asked, unfinished)
    if options.stream_mode == "item":
        progress.counts["waiting"] = _choose_of_stream(services, opened, schema, standing)
    elif options.stream_buffer:
        _choose_of_buffer(services, opened, schema, standing)
    else:
        _choose_of_pools(services, opened, schema, standing)
    progress("selected")

    progress.counts["asked"] = ask(services, schema, project_id, opened.version, progress)
    progress("asked")
    places = _places(services, opened, settled, options)
    progress.counts |= {"queue": len(places), "batch": sum(place.role != "reserve" for place in places)}
    if _is_served(services, opened, places):
        rounds.close(store, opened.id, "empty")
        return
    published = publish(services, opened, schema, places, {}, progress)
    progress.counts["published"] = len(published)
    progress("cleared")


def _choose(
    opened: Round, schema: TaskSchema, now: _Standing, settled: Settled, *, conflicts_only: bool = False
) -> Choice:
    known = (now.arrays, now.head, settled, now.asked, now.options)
    return choose_questions(*known, schema.directions, now.places, opened.seed, conflicts_only=conflicts_only)


def _choose_of_pools(services: Services, opened: Round, schema: TaskSchema, now: _Standing) -> None:
    """Note the questions of the batch; where all that is left rests, those of the next round that ends a rest.

    Rests are counted in rounds, and without a question no round would follow. The longest ones stay: an item that
    annotators could not tell anything of time and again would be asked about for ever.
    """
    chosen = _choose(opened, schema, now, now.settled)
    for end in sorted({end for end in now.settled.rests.values() if end <= opened.number + LONGEST_REST}):
        if chosen.questions or not now.places:
            break
        rested = settled_pairs(services, opened.project_id, now.asked, end, now.options)
        chosen = _choose(opened, schema, now, rested)
    note_questions(services, opened, chosen.questions)


def _choose_of_buffer(services: Services, opened: Round, schema: TaskSchema, now: _Standing) -> None:
    """Note the questions of a full buffer, which is done with then, asked about or not; else of conflicts only.

    Questions of a round that was cut off are a batch of their own: what waits is not let go for a few places beside
    them.
    """
    states, numbers = now.arrays.states, now.arrays.numbers
    waiting = {int(n) for m in MODALITIES for n in numbers[m][states[m] == WAITING]}
    full = len(waiting) >= now.options.stream_buffer and not now.unfinished
    chosen = _choose(opened, schema, now, now.settled, conflicts_only=not full)
    note_questions(services, opened, chosen.questions)
    if full:
        # Its questions are noted: a crash from here on loses none.
        catalogue.set_state(services.store, opened.project_id, waiting - chosen.kept, "dropped")


def _choose_of_stream(services: Services, opened: Round, schema: TaskSchema, now: _Standing) -> int:
    """Judge what arrived and note the questions of it; tells how many items are left waiting."""
    store, project_id, arrays = services.store, opened.project_id, now.arrays
    note = f"stream {project_id}"
    stored = notes.read(store, note)
    arrival = judge_arrivals(
        arrays, now.head, now.settled, now.asked, now.options, schema.directions, opened.seed, stored
    )
    note_questions(services, opened, arrival.choice.questions)
    # A crash before the items are marked has them judged again, and those that are asked about left alone.
    catalogue.set_state(store, project_id, arrival.judged - arrival.dropped, JUDGED)
    catalogue.set_state(store, project_id, arrival.dropped, "dropped")
    notes.write(store, note, arrival.stream)
    return sum(int((arrays.states[m] == WAITING).sum()) for m in MODALITIES) - len(arrival.judged)


def settled_pairs(
    services: Services, project_id: int, asked: Sequence[PairQueryRow], round_number: int, options: ProjectOptions
) -> Settled:
    """What all answers so far come to."""
    written = catalogue.written(services.store, project_id)
    shared = spoken_of_twice(asked) if options.one_to_one else set()
    twins = catalogue.equal_contents(services.store, project_id, shared)
    return settle(asked, written, round_number, one_to_one=options.one_to_one, twins=twins)


def _is_served(services: Services, opened: Round, places: Sequence[Place]) -> bool:
    """The queue in force asks the very same questions, all of them older ones: its order is as good as it was."""
    in_force = rounds.in_force(services.store, projects.get(services.store, opened.project_id))
    if not places or in_force is None:
        return not places
    served = {place.task_id for place in rounds.queue(services.store, in_force.id)}
    still_open = {q.task_id for q in pair_queries.every(services.store, opened.project_id) if q.answer == "open"}
    wanted = {place.task_id for place in places}
    return all(place.role == "reserve" for place in places) and served & still_open == wanted


def _unfinished(
    services: Services, project_id: int, asked: Sequence[PairQueryRow], settled: Settled, options: ProjectOptions
) -> list[PairQueryRow]:
    """Open questions of rounds that were cut off, which count into this batch; idle ones are withdrawn."""
    last = _last_published(services, project_id)
    still_open = [q for q in asked if q.answer == "open"]
    idle = _idle(still_open, settled, options)
    withdraw(services, project_id, [q for q in still_open if q.key in idle])
    return [q for q in still_open if q.key not in idle and q.round_number > last]


def _last_published(services: Services, project_id: int) -> int:
    """Number of the last published round, which asked whatever rounds before it had been cut off from asking."""
    return max((r.number for r in rounds.names(services.store, project_id, "published")), default=0)


def _idle(questions: Sequence[PairQueryRow], settled: Settled, options: ProjectOptions) -> set[str]:
    """Keys of those whose item got the only counterpart it has through another question."""
    paired = settled.paired if options.one_to_one else set()
    return {q.key for q in questions if q.item in paired and q.purpose != CONFLICT}


def _places(services: Services, opened: Round, settled: Settled, options: ProjectOptions) -> list[Place]:
    """The questions nobody has answered: conflicts first, then the batch of this round, then older ones."""
    asked = [q for q in pair_queries.every(services.store, opened.project_id) if q.answer == "open" and q.task_id]
    # Somebody may be working on one that was not withdrawn for that; it is not served to others.
    idle = _idle(asked, settled, options)
    still_open = [q for q in asked if q.key not in idle]
    last = _last_published(services, opened.project_id)
    fresh = [q for q in still_open if q.round_number > last]
    fresh.sort(key=lambda q: (q.purpose != CONFLICT, _shuffled(opened, q)))
    older = sorted((q for q in still_open if q.round_number <= last), key=lambda q: (-q.round_number, q.key))
    return [Place(q.task_id, "control" if q.purpose == "audit" else "batch", q.why, q.figures) for q in fresh] + [
        Place(q.task_id, "reserve", "reserve", q.figures) for q in older
    ]


def _shuffled(opened: Round, question: PairQueryRow) -> float:
    # A batch is asked whole: a random order keeps control samples from standing together.
    return float(np.random.default_rng([opened.seed, question.item]).random())
