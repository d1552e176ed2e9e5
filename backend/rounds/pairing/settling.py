"""What the answers to all questions come to: pairs, conflicts, and items that are left alone for now.

Worked out afresh from all answers at every round, so that an answer that was changed or deleted changes what
followed from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backend.labelstudio.annotations import parse_time
from backend.store.tables import PairQueryRow
from backend.strategies.pairing import rest_end

CONFLICT = "conflict"
ANSWERED = frozenset({"pick", "written"})
# Rounds after which an item is asked about again, the first time; twice as many each further time. By then the model
# has other guesses than those answered "none of these". A conflict that nobody decided rests as long.
COOL_DOWN, COOL_DOWN_UNSURE = 3, 2
# So long rests an item at most that was answered "none of these": each time it is shown other candidates.
LONGEST_REST = 12


@dataclass(frozen=True)
class Conflict:
    """Two questions with the same answer, where an item may have one counterpart only.

    item : the partner both claim; earlier, later : the questions, in the order they were answered
    waits : somebody is being asked which of the two it is, or was lately and did not decide
    """

    item: int
    earlier: PairQueryRow
    later: PairQueryRow
    waits: bool = False


@dataclass
class Settled:
    """What is known of a project's pairs.

    pairs : (image, text) -> the key of the question that says so, in the order they were answered
    conflicts : contested items that nobody has settled yet
    resting : items that are not asked about in the coming round
    rests : item -> the round that ends its rest, of those that rest for a time
    refused : item -> candidates that an annotator saw beside "none of these"
    """

    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    resting: set[int] = field(default_factory=set)
    rests: dict[int, int] = field(default_factory=dict)
    refused: dict[int, set[int]] = field(default_factory=dict)

    @property
    def paired(self) -> set[int]:
        """Items that have a counterpart."""
        return {item for pair in self.pairs for item in pair}


def settle(
    questions: Iterable[PairQueryRow],
    written: Mapping[str, int],
    round_number: int,
    *,
    one_to_one: bool = True,
    twins: Mapping[int, Sequence[int]] | None = None,
) -> Settled:
    """Pairs and conflicts from all answers; independent of the order of ``questions``.

    written: key of a question -> number of the text that was written as its answer; round_number: of the round that
    is about to choose; twins: item -> others of equal content, which nobody could tell from it. Who answered first
    keeps the partner until the conflict is settled; an answer to the question of a conflict decides between the two.
    """
    found, twins = Settled(), twins or {}
    asked = list(questions)
    verdicts = {q.item: q for q in asked if q.purpose == CONFLICT and q.answer in ANSWERED | {"none"}}
    claims = sorted(
        (q for q in asked if q.purpose != CONFLICT and q.answer in ANSWERED),
        key=lambda q: (parse_time(q.answered_at), q.key),
    )
    holder: dict[int, PairQueryRow] = {}
    for question in claims:
        for said in _partners(question, written, one_to_one):
            partner = _free_twin(said, holder, twins) if one_to_one else said
            taken = [item for item in (partner, question.item) if item in holder]
            pair = _pair(question.modality, question.item, partner)
            if not one_to_one or not taken or pair in found.pairs:
                found.pairs.setdefault(pair, question.key)
                holder.setdefault(partner, question)
                holder.setdefault(question.item, question)
            elif not _is_known(pair, taken[0], found, twins):
                _contest(found, holder, verdicts, taken[0], question, pair)
    for question in asked:
        if question.answer == "none" and question.purpose != CONFLICT:
            found.refused.setdefault(question.item, set()).update(question.candidates)
    undecided = _rests(asked, "conflict", COOL_DOWN, round_number)
    unsure = _rests(asked, "unsure", COOL_DOWN_UNSURE, round_number)
    refused = _rests(asked, "none", COOL_DOWN, round_number, LONGEST_REST)
    for ends in (undecided, unsure, refused):
        for item, end in ends.items():
            found.rests[item] = max(end, found.rests.get(item, 0))
    found.resting |= unsure.keys() | refused.keys()
    waiting = undecided.keys() | {q.item for q in asked if _may_be_answered(q)}
    found.conflicts = [replace(c, waits=not waiting.isdisjoint((c.item, c.later.item))) for c in found.conflicts]
    return found


def spoken_of_twice(questions: Iterable[PairQueryRow]) -> set[int]:
    """Items of answers that share an item with another answer: only there does it matter who has the same content."""
    claims = [{q.item, q.partner} - {0} for q in questions if q.purpose != CONFLICT and q.answer in ANSWERED]
    times = Counter(item for claim in claims for item in claim)
    return {item for claim in claims if any(times[each] > 1 for each in claim) for item in claim}


def _rests(
    asked: Iterable[PairQueryRow], why: str, first: int, round_number: int, longest: int | None = None
) -> dict[int, int]:
    """Item -> the round that ends its rest, of those that still rest for this reason."""
    rounds: dict[int, list[int]] = {}
    for question in asked:
        if _says(question) == why:
            rounds.setdefault(question.item, []).append(question.round_number)
    ends = {item: rest_end(those, first, longest) for item, those in rounds.items()}
    return {item: end for item, end in ends.items() if end > round_number}


def _says(question: PairQueryRow) -> str:
    """Its answer; "conflict" for the question of a conflict that was answered without deciding it."""
    if question.purpose != CONFLICT:
        return question.answer
    decided = question.answer in ANSWERED | {"none"}
    return "" if decided or question.answer == "deleted" or _may_be_answered(question) else CONFLICT


def _may_be_answered(question: PairQueryRow) -> bool:
    """The question of a conflict that somebody is being asked, or that cannot be shown and so has no task."""
    unshown = question.answer == "unreadable" and not question.task_id
    return question.purpose == CONFLICT and (question.answer == "open" or unshown)


def _free_twin(partner: int, holder: Mapping[int, PairQueryRow], twins: Mapping[int, Sequence[int]]) -> int:
    """The partner or, where that is taken, the first free one of equal content."""
    if partner not in holder:
        return partner
    return next((twin for twin in twins.get(partner, ()) if twin not in holder), partner)


def _is_known(pair: tuple[int, int], taken: int, found: Settled, twins: Mapping[int, Sequence[int]]) -> bool:
    """The pair of the taken item says the same already, of items with equal contents."""
    first = next(each for each in found.pairs if taken in each)
    return all(a == b or b in twins.get(a, ()) for a, b in zip(pair, first, strict=True))


def _partners(question: PairQueryRow, written: Mapping[str, int], one_to_one: bool) -> list[int]:
    """What the answer says belongs to the item; of several, the best alone where an item has one counterpart."""
    if question.answer == "written":
        given = [written.get(question.key, 0)]
    else:
        given = [question.partner, *([] if one_to_one else question.further_partners or [])]
    return [partner for partner in given if partner]


def _contest(
    found: Settled,
    holder: dict[int, PairQueryRow],
    verdicts: Mapping[int, PairQueryRow],
    item: int,
    later: PairQueryRow,
    pair: tuple[int, int],
) -> None:
    earlier = holder[item]
    # A form that cannot show the contested item asks the later question once more instead.
    verdict = verdicts.get(item) or verdicts.get(later.item)
    if verdict is None:
        found.conflicts.append(Conflict(item, earlier, later))
        # Asking about the one that came second would ask the same again.
        found.resting.add(later.item)
        return
    first = next(each for each in found.pairs if item in each)
    chosen = None if verdict.answer == "none" else _pair(verdict.modality, verdict.item, verdict.partner)
    if chosen == first:
        return
    if verdict.item == item or (chosen is not None and item in chosen):
        del found.pairs[first]
        for member in first:
            holder.pop(member, None)
    if chosen is not None and not any(member in holder for member in chosen):
        found.pairs[chosen] = verdict.key
        for member in chosen:
            holder[member] = later if chosen == pair else verdict


def _pair(modality: str, item: int, partner: int) -> tuple[int, int]:
    return (item, partner) if modality == "image" else (partner, item)
