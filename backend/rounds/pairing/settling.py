"""What the answers to all questions come to: pairs, conflicts, and items that are left alone for now.

Worked out afresh from all answers at every round, so that an answer that was changed or deleted changes what
followed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from backend.labelstudio.annotations import parse_time
from backend.store.tables import PairQueryRow

CONFLICT = "conflict"
ANSWERED = frozenset({"pick", "written"})
# Rounds for which an item is not asked about again after "none of these": by then the model has other guesses. A
# conflict that nobody decided rests as long.
COOL_DOWN = 3


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
    refused : item -> candidates that an annotator saw beside "none of these"
    """

    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    resting: set[int] = field(default_factory=set)
    refused: dict[int, set[int]] = field(default_factory=dict)

    @property
    def paired(self) -> set[int]:
        """Items that have a counterpart."""
        return {item for pair in self.pairs for item in pair}


def settle(
    questions: Iterable[PairQueryRow], written: Mapping[str, int], round_number: int, *, one_to_one: bool = True
) -> Settled:
    """Pairs and conflicts from all answers; independent of the order of ``questions``.

    written: key of a question -> number of the text that was written as its answer; round_number: of the round that
    is about to choose. Who answered first keeps the partner until the conflict is settled; an answer to the question
    of a conflict decides between the two.
    """
    found = Settled()
    asked = list(questions)
    verdicts = {q.item: q for q in asked if q.purpose == CONFLICT and q.answer in ANSWERED | {"none"}}
    claims = sorted(
        (q for q in asked if q.purpose != CONFLICT and q.answer in ANSWERED),
        key=lambda q: (parse_time(q.answered_at), q.key),
    )
    holder: dict[int, PairQueryRow] = {}
    for question in claims:
        for partner in _partners(question, written, one_to_one):
            taken = [item for item in (partner, question.item) if item in holder]
            pair = _pair(question.modality, question.item, partner)
            if not one_to_one or not taken or pair in found.pairs:
                found.pairs.setdefault(pair, question.key)
                holder.setdefault(partner, question)
                holder.setdefault(question.item, question)
            else:
                _contest(found, holder, verdicts, taken[0], question, pair)
    for question in asked:
        if question.answer == "unsure" and question.round_number >= round_number - 1:
            found.resting.add(question.item)
        if question.answer == "none" and question.purpose != CONFLICT:
            found.refused.setdefault(question.item, set()).update(question.candidates)
            if question.round_number > round_number - COOL_DOWN:
                found.resting.add(question.item)
    waiting = {q.item for q in asked if q.purpose == CONFLICT and _waits(q, round_number)}
    found.conflicts = [replace(c, waits=not waiting.isdisjoint((c.item, c.later.item))) for c in found.conflicts]
    return found


def _waits(question: PairQueryRow, round_number: int) -> bool:
    """The question of a conflict may still be answered, or was not decided so lately that asking again is no use."""
    if question.answer == "open" or (question.answer == "unreadable" and not question.task_id):
        # Without a task it is one that cannot be shown.
        return True
    return question.answer != "deleted" and question.round_number > round_number - COOL_DOWN


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
