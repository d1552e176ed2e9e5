"""What a pairing round asks: the pools as arrays, the model on known pairs, the strategy's questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.pair_tasks import Modality
from backend.learners.projection import ProjectionHead
from backend.rounds.models import joint_start
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.settling import CONFLICT, Conflict, Settled, contested_by
from backend.rounds.services import Services
from backend.store import catalogue
from backend.store.tables import PairQueryRow
from backend.strategies import Pairs, create_strategy
from backend.strategies.pairing import (
    MODALITIES,
    Query,
    conformal_candidates,
    farthest_of,
    one_of_each,
    other,
    places_of,
    still_offered,
)

MOST_CANDIDATES = 8


@dataclass(frozen=True)
class PairingArrays:
    """The embedded items of a project, modality by modality; rows in the order of their numbers.

    Attributes
    ----------
    numbers : modality -> (n,) int64, numbers of the catalogue, ascending
    features : modality -> (n, D) float16, zero rows for what could not be read
    states : modality -> (n,) "pool", "buffer", "judged" or "dropped"
    contents : modality -> (n,) int64, equal for items of equal content; in a modality that is not named all differ
    """

    numbers: dict[str, NDArray[np.int64]]
    features: dict[str, NDArray[np.float16]]
    states: dict[str, NDArray[np.str_]]
    contents: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def content(self, modality: str) -> NDArray[np.int64]:
        """(n,) int64, equal for items of equal content."""
        return self.contents.get(modality, self.numbers[modality])

    def rows(self, modality: str, numbers: Collection[int]) -> NDArray[np.int64]:
        """Rows of those of these numbers that are embedded, ascending."""
        return places_of(np.unique(np.fromiter(numbers, np.int64, len(numbers))), self.numbers[modality])

    def known(self, settled: Settled) -> NDArray[np.int64]:
        """(p, 2) rows (image, text) of the pairs whose two sides are embedded."""
        place = {m: {int(n): i for i, n in enumerate(self.numbers[m])} for m in MODALITIES}
        found = [
            (place["image"][image], place["text"][text])
            for image, text in settled.pairs
            if image in place["image"] and text in place["text"]
        ]
        return np.array(found, np.int64).reshape(-1, 2)

    def buffered(self, size: int, settled: Settled) -> PairingArrays:
        """The buffer of a stream, its ``size`` oldest items, with the pairs known so far (unaligned.md section 3)."""
        waiting = np.sort(np.concatenate([self.numbers[m][self.states[m] == "buffer"] for m in MODALITIES]))[:size]
        wanted = np.concatenate([waiting, np.fromiter(settled.paired, np.int64, len(settled.paired))])
        kept = {m: np.isin(self.numbers[m], wanted) for m in MODALITIES}
        return PairingArrays(
            {m: self.numbers[m][kept[m]] for m in MODALITIES},
            {m: self.features[m][kept[m]] for m in MODALITIES},
            {m: self.states[m][kept[m]] for m in MODALITIES},
            {m: self.content(m)[kept[m]] for m in MODALITIES},
        )


@dataclass(frozen=True)
class Choice:
    """What a round asks. kept: items of the buffer of a stream that stay for the next one."""

    questions: list[Question]
    kept: set[int]


@dataclass(frozen=True)
class Question:
    """A question that is to be asked, in numbers of the catalogue."""

    modality: Modality
    item: int
    candidates: list[int]
    similarities: list[float]
    purpose: str
    why: str
    figures: dict[str, float]


def load_catalogue(services: Services, project_id: int, settled: Settled) -> PairingArrays:
    """Read what is embedded; of the dropped items, all there ever were in a stream, those that answers speak of."""
    spoken_of = settled.paired.union(*(conflict.items for conflict in settled.conflicts))
    rows = catalogue.vector_rows(services.store, project_id, services.encoder_id, spoken_of)
    vectors = services.vectors()
    mine = {m: [row for row in rows if row.modality == m] for m in MODALITIES}
    return PairingArrays(
        {m: np.array([row.number for row in mine[m]], np.int64) for m in MODALITIES},
        {
            m: vectors.gather(m, np.array([row.row for row in mine[m]], np.int64))
            if vectors is not None
            else np.zeros((0, 1), np.float16)
            for m in MODALITIES
        },
        {m: np.array([row.state for row in mine[m]], np.str_) for m in MODALITIES},
        # A content has one vector, however many items have it; what could not be read has none.
        {m: np.array([row.row if row.row >= 0 else -row.number for row in mine[m]], np.int64) for m in MODALITIES},
    )


def fit_projection(
    services: Services, arrays: PairingArrays, known: NDArray[np.int64], options: ProjectOptions, seed: int
) -> ProjectionHead:
    """The shared space, trained on the known pairs; each round starts from the same point.

    That is the encoder's own space where image and text have one, the projection that ships for the encoder, or
    random directions, in which similarities mean nothing until there are pairs.
    """
    start = joint_start(services, arrays.features)
    return ProjectionHead.fit(arrays.features, known, loss=options.alignment_loss, start=start, seed=seed)


def choose_questions(
    arrays: PairingArrays,
    head: ProjectionHead,
    settled: Settled,
    asked: Sequence[PairQueryRow],
    options: ProjectOptions,
    directions: Sequence[str],
    count: int,
    seed: int,
    *,
    conflicts_only: bool = False,
) -> Choice:
    """``count`` questions by the strategy, after those that settle conflicts; fewer where nothing is left to ask.

    A buffer of a stream is asked about once: there the conflicts take none of the places.
    """
    joint = {m: head.embed(m, arrays.features[m]) for m in MODALITIES}
    questions = conflict_questions(arrays, joint, settled, directions)[:count]
    places = count if options.stream_buffer else count - len(questions)
    if conflicts_only or not places or not all(len(arrays.numbers[m]) for m in MODALITIES):
        return Choice(questions, set())
    pairs = pools(arrays, joint, settled, asked, options)
    shown = candidates_shown(asked, options)
    strategy = create_strategy(
        options.strategy,
        audit_share=options.audit_share,
        **{**options.strategy_options, "directions": _directions(directions, options)},
    )
    selection = strategy.select(pairs, places, np.random.default_rng(seed), candidates=shown)
    questions += [as_question(arrays, pairs, query) for query in selection.queries]
    # One leaves at least: a buffer that stayed full would be asked about for ever.
    keep = min(options.stream_keep, options.stream_buffer - 1) if options.stream_buffer else 0
    kept = farthest_of(pairs, selection, keep) if keep else {}
    return Choice(questions, {int(arrays.numbers[m][row]) for m, rows in kept.items() for row in rows})


def pools(
    arrays: PairingArrays,
    joint: Mapping[str, np.ndarray],
    settled: Settled,
    asked: Sequence[PairQueryRow],
    options: ProjectOptions,
) -> Pairs:
    """What the strategy sees: the pools, or the buffer of a stream beside the pairs aligned so far.

    Those count as covered and are never offered again. Of equal contents one is on offer, and nobody is asked about
    an item that every candidate left was refused for. Source: unaligned.md section 3; the paper states the buffer,
    the rest is ours.
    """
    waiting = {q.item for q in asked if q.answer in ("open", "tie", "unreadable", "skipped")}
    pairs = of_distinct_contents(
        arrays,
        Pairs(
            arrays.features,
            joint,
            arrays.known(settled),
            {m: _allowed(arrays, m, settled.resting | waiting, options) for m in MODALITIES},
            options.one_to_one,
            {m: arrays.states[m] == pool_state(options) for m in MODALITIES},
            _history(asked),
        ),
    )
    return replace(pairs, refused={m: _refused(arrays, pairs, m, settled.refused) for m in MODALITIES})


def of_distinct_contents(arrays: PairingArrays, pairs: Pairs) -> Pairs:
    """The pairs with one item of each content on offer: equal ones tell nothing of how sure the model is."""
    return replace(pairs, offered={m: one_of_each(arrays.content(m), pairs.candidates(m)) for m in MODALITIES})


def _refused(
    arrays: PairingArrays, pairs: Pairs, modality: str, refused: Mapping[int, set[int]]
) -> dict[int, NDArray[np.int64]]:
    """Row of an item -> rows on offer that an annotator saw beside "none of these", by this or another name."""
    theirs, numbers = other(modality), arrays.numbers[modality]
    rows = arrays.rows(modality, refused.keys())
    in_vain = {int(row): arrays.rows(theirs, refused[int(numbers[row])]) for row in rows}
    return still_offered(arrays.content(theirs), pairs.offered[theirs], in_vain)


def pool_state(options: ProjectOptions) -> str:
    """State of the items that are asked about and offered: the pool of a stream is its buffer."""
    return "buffer" if options.stream_buffer else "pool"


def candidates_shown(asked: Sequence[PairQueryRow], options: ProjectOptions) -> int:
    """How many candidates a question shows: as set, or as many as the control sample says are enough."""
    if options.coverage is None:
        return options.candidates
    ranks = {audit: truth_ranks(asked, audit=audit) for audit in (True, False)}
    if not ranks[True]:
        return MOST_CANDIDATES
    return conformal_candidates(ranks[True], 1 - options.coverage, MOST_CANDIDATES, acquired=ranks[False]).k


def truth_ranks(asked: Sequence[PairQueryRow], *, audit: bool) -> list[float]:
    """Rank of the (best) counterpart of each answered question, 1 = best; infinite where none was shown."""
    found = []
    for query in asked:
        if (query.purpose == "audit") == audit and query.answer in ("pick", "none", "written"):
            partners = {query.partner, *(query.further_partners or [])}
            places = [place for place, number in enumerate(query.candidates, start=1) if number in partners]
            found.append(float(places[0]) if places else float("inf"))
    return found


def _allowed(arrays: PairingArrays, modality: str, left_out: set[int], options: ProjectOptions) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = arrays.states[modality] == pool_state(options)
    mask[arrays.rows(modality, left_out)] = False
    return mask


def _history(asked: Sequence[PairQueryRow]) -> tuple[str, ...]:
    """The modality that most questions of each round asked about, oldest round first."""
    of_round: dict[int, list[str]] = {}
    for query in asked:
        if query.purpose == "query":
            of_round.setdefault(query.round_number, []).append(query.modality)
    return tuple(max(MODALITIES, key=names.count) for _, names in sorted(of_round.items()))


def _directions(directions: Sequence[str], options: ProjectOptions) -> str:
    """What may be asked about: what the form can show, unless the project wants less."""
    return str(options.strategy_options.get("directions", "both")) if len(directions) > 1 else directions[0]


def as_question(arrays: PairingArrays, pairs: Pairs, query: Query) -> Question:
    """A query of rows in numbers of the catalogue."""
    item = int(arrays.numbers[query.modality][query.item])
    offered, rows = other(query.modality), query.candidates
    similarities = pairs.joint[offered][rows] @ pairs.joint[query.modality][query.item]
    control = query.figures.get("control", 0.0) > 0
    return Question(
        modality=query.modality,  # type: ignore[arg-type]
        item=item,
        candidates=arrays.numbers[offered][rows].tolist(),
        similarities=[round(float(s), 5) for s in similarities],
        purpose="audit" if control else "query",
        why="control" if control else query.why,
        figures={name: round(value, 6) for name, value in query.figures.items()},
    )


def conflict_questions(
    arrays: PairingArrays,
    joint: Mapping[str, np.ndarray],
    settled: Settled,
    directions: Sequence[str],
) -> list[Question]:
    """Questions that settle the conflicts, one for each that nobody is being asked about."""
    questions: dict[int, Question] = {}
    for conflict in settled.conflicts:
        if not conflict.waits:
            question = _conflict_question(arrays, joint, conflict, directions)
            # An item that claims two contested ones is asked once more about the first of them.
            questions.setdefault(question.item, question)
    return list(questions.values())


def _conflict_question(
    arrays: PairingArrays, joint: Mapping[str, np.ndarray], conflict: Conflict, directions: Sequence[str]
) -> Question:
    """Ask the contested item which of them it belongs to; where the form cannot, the second question again."""
    second = conflict.claims[1].question
    contested = second.modality if conflict.item == second.item else other(second.modality)
    if contested in directions:
        claimants = [claim.item for claim in conflict.claims[:MOST_CANDIDATES]]
        similarities = _similarities(arrays, joint, contested, conflict.item, claimants)
        order = np.argsort(-np.array(similarities), kind="stable")
        return Question(
            contested,  # type: ignore[arg-type]
            conflict.item,
            [claimants[i] for i in order],
            [similarities[i] for i in order],
            CONFLICT,
            CONFLICT,
            {},
        )
    return Question(
        second.modality,  # type: ignore[arg-type]
        second.item,
        list(second.candidates),
        list(second.similarities),
        CONFLICT,
        CONFLICT,
        contested_by(conflict.item, conflict.claims[0].item),
    )


def _similarities(
    arrays: PairingArrays, joint: Mapping[str, np.ndarray], modality: str, item: int, candidates: Sequence[int]
) -> list[float]:
    def vector(side: str, number: int) -> np.ndarray:
        rows = arrays.rows(side, [number])
        return joint[side][rows[0]] if len(rows) else np.zeros(joint[side].shape[1], np.float32)

    query = vector(modality, item)
    return [round(float(query @ vector(other(modality), number)), 5) for number in candidates]
