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
from backend.strategies.pairing import COOL_DOWN, LONGEST_REST, other, rest_end

CONFLICT = "conflict"
ANSWERED = frozenset({"pick", "written"})
DECIDED = ANSWERED | {"none"}
# As COOL_DOWN, after "cannot tell". A conflict that nobody decided rests as long as an item without counterpart.
COOL_DOWN_UNSURE = 2

Pair = tuple[int, int]
"""Numbers of an image and a text."""


@dataclass(frozen=True)
class Claim:
    """An answer says that ``item`` belongs to a contested one; ``question``: the one that was answered so."""

    item: int
    question: PairQueryRow


@dataclass(frozen=True)
class Conflict:
    """Several items claim one that may have one counterpart only.

    item : what they claim; claims : in the order they were answered, the first holds it meanwhile
    waits : somebody is being asked which of them it is, or was lately and did not decide
    """

    item: int
    claims: tuple[Claim, ...]
    waits: bool = False

    @property
    def items(self) -> set[int]:
        """The contested item and all that claim it."""
        return {self.item, *(claim.item for claim in self.claims)}


@dataclass
class Settled:
    """What is known of a project's pairs.

    pairs : (image, text) -> the key of the question that says so, in the order they were answered
    conflicts : contested items that nobody has settled yet, each once
    resting : items that are not asked about in the coming round
    rests : item -> the round that ends its rest, of those that rest for a time
    refused : item -> what an annotator saw beside it and did not take: with "none of these", or in a verdict
    """

    pairs: dict[Pair, str] = field(default_factory=dict)
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
    is about to choose; twins: item -> others of equal content, which nobody could tell from it. Where an item has one
    counterpart, who answered first keeps the partner until the conflict is settled. The answer to the question of a
    conflict decides among the items it showed; whoever claims the item later contests it again. Every answer is thus
    a pair (of such an item or one of equal content), part of a conflict, or refused by a verdict that showed it.
    """
    found, twins = Settled(), twins or {}
    asked = sorted(questions, key=lambda q: (parse_time(q.answered_at), q.key))
    verdicts = _verdicts(asked, written) if one_to_one else {}
    holder: dict[int, tuple[Pair, PairQueryRow]] = {}
    contested: dict[int, dict[int, PairQueryRow]] = {}
    for question in asked:
        for said in _partners(question, written, one_to_one):
            if not verdicts.get(_pair(question.modality, question.item, said), True):
                continue
            partner = _free_twin(question, said, holder, twins, verdicts) if one_to_one else said
            pair = _pair(question.modality, question.item, partner)
            taken = [item for item in (partner, question.item) if item in holder] if one_to_one else []
            if not taken:
                found.pairs.setdefault(pair, question.key)
                holder |= dict.fromkeys(pair, (pair, question))
            elif not _is_known(pair, holder[taken[0]][0], twins):
                held, first = holder[taken[0]]
                claims = contested.setdefault(taken[0], {_counterpart(held, taken[0]): first})
                claims.setdefault(_counterpart(pair, taken[0]), question)
                # Asking about the one that came second would ask the same again.
                found.resting.add(question.item)
    _refuse(found, asked, verdicts)
    waiting = _rest(found, asked, round_number)
    for item, claims in contested.items():
        conflict = Conflict(item, tuple(Claim(claimant, question) for claimant, question in claims.items()))
        again = {claim.question.item for claim in conflict.claims[1:]}
        found.conflicts.append(replace(conflict, waits=not waiting.isdisjoint({item} | again)))
    return found


def spoken_of_twice(questions: Iterable[PairQueryRow]) -> set[int]:
    """Items of answers that share an item with another answer: only there does it matter who has the same content."""
    claims = [{q.item, q.partner} - {0} for q in questions if q.answer in ANSWERED]
    times = Counter(item for claim in claims for item in claim)
    return {item for claim in claims if any(times[each] > 1 for each in claim) for item in claim}


def contested_by(item: int, holder: int) -> dict[str, float]:
    """Figures of a question that is asked once more because ``item``, its answer, is held by ``holder`` already."""
    return {"contested": float(item), "held_by": float(holder)}


def _refuse(found: Settled, asked: Sequence[PairQueryRow], verdicts: Mapping[Pair, bool]) -> None:
    for question in asked:
        if question.answer == "none" and question.purpose != CONFLICT:
            found.refused.setdefault(question.item, set()).update(question.candidates)
    for (image, text), belongs in verdicts.items():
        if not belongs:
            found.refused.setdefault(image, set()).add(text)
            found.refused.setdefault(text, set()).add(image)


def _rest(found: Settled, asked: Sequence[PairQueryRow], round_number: int) -> set[int]:
    """Note who rests; tells the items whose question of a conflict may yet be answered or was not decided lately."""
    undecided = _rests(asked, CONFLICT, COOL_DOWN, round_number)
    unsure = _rests(asked, "unsure", COOL_DOWN_UNSURE, round_number)
    refused = _rests(asked, "none", COOL_DOWN, round_number, LONGEST_REST)
    for ends in (undecided, unsure, refused):
        for item, end in ends.items():
            found.rests[item] = max(end, found.rests.get(item, 0))
    found.resting |= unsure.keys() | refused.keys()
    return undecided.keys() | {q.item for q in asked if _may_be_answered(q)}


def _verdicts(asked: Sequence[PairQueryRow], written: Mapping[str, int]) -> dict[Pair, bool]:
    """Whether a pair is one, for all that the questions of conflicts showed; of several the latest answer counts."""
    said: dict[Pair, bool] = {}
    for verdict in asked:
        if verdict.purpose != CONFLICT or verdict.answer not in DECIDED:
            continue
        chosen = _partners(verdict, written, one_to_one=True)
        for shown in [*verdict.candidates, *chosen]:
            said[_pair(verdict.modality, verdict.item, shown)] = shown in chosen
        asked_for = {name: int(number) for name, number in (verdict.figures or {}).items()}
        if asked_for.get("contested") in chosen:
            # The form cannot ask about the contested item: who claims it once more gets it.
            said[_pair(other(verdict.modality), asked_for["contested"], asked_for["held_by"])] = False
    return said


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
    """Its answer; `CONFLICT` for the question of a conflict that was answered without deciding it."""
    if question.purpose != CONFLICT:
        return question.answer
    gone = question.answer in DECIDED | {"deleted", "withdrawn"}
    return "" if gone or _may_be_answered(question) else CONFLICT


def _may_be_answered(question: PairQueryRow) -> bool:
    """The question of a conflict that somebody is being asked, or that cannot be shown and so has no task."""
    unshown = question.answer == "unreadable" and not question.task_id
    return question.purpose == CONFLICT and (question.answer == "open" or unshown)


def _free_twin(
    question: PairQueryRow,
    said: int,
    holder: Mapping[int, object],
    twins: Mapping[int, Sequence[int]],
    verdicts: Mapping[Pair, bool],
) -> int:
    """The item that was picked or, where that is taken, the first free one of equal content."""
    if said not in holder:
        return said
    free = [twin for twin in twins.get(said, ()) if twin not in holder]
    return next((t for t in free if verdicts.get(_pair(question.modality, question.item, t), True)), said)


def _is_known(pair: Pair, held: Pair, twins: Mapping[int, Sequence[int]]) -> bool:
    """The pair of the taken item says the same already, of items with equal contents."""
    return all(a == b or b in twins.get(a, ()) for a, b in zip(pair, held, strict=True))


def _partners(question: PairQueryRow, written: Mapping[str, int], one_to_one: bool) -> list[int]:
    """What the answer says belongs to the item; of several, the best alone where an item has one counterpart."""
    if question.answer not in ANSWERED:
        return []
    if question.answer == "written":
        given = [written.get(question.key, 0)]
    else:
        given = [question.partner, *([] if one_to_one else question.further_partners or [])]
    return [partner for partner in given if partner]


def _counterpart(pair: Pair, item: int) -> int:
    return pair[1] if pair[0] == item else pair[0]


def _pair(modality: str, item: int, partner: int) -> Pair:
    return (item, partner) if modality == "image" else (partner, item)
