"""How far annotators agree: over all, each annotator with the others, and class by class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.labelstudio.annotations import Answer, latest_answers, resolve_label


@dataclass(frozen=True)
class AnnotatorAgreement:
    """`share` of the `answers` of one annotator that equal the majority of the others.

    annotator: number of the user in Label Studio. Answers to tasks where the others are tied do not count.
    """

    annotator: int
    answers: int
    share: float


@dataclass(frozen=True)
class ClassAgreement:
    """`share`: of those who gave the class, how many of the others did so too; `answers`: how often it was given."""

    choice: str
    answers: int
    share: float


@dataclass(frozen=True)
class Agreement:
    """What the tasks that several annotators answered say of them.

    alpha: Krippendorff's, nominal, whole answers compared (1: always the same, 0: as by chance); None where every
    answer is the same. annotators and classes: the least agreed on first.
    """

    tasks: int
    alpha: float | None
    annotators: tuple[AnnotatorAgreement, ...]
    classes: tuple[ClassAgreement, ...]


def measure_agreement(answers: Mapping[int, Sequence[Answer]], *, multi_label: bool) -> Agreement | None:
    """Agreement over the tasks with two answers or more; None where there is none.

    Each annotator counts with the last answer that is not a skip; answers without an annotator do not count.
    """
    shared = [
        votes
        for given in answers.values()
        if len(votes := [a for a in latest_answers(given) if a.annotator_id is not None]) > 1
    ]
    if not shared:
        return None
    return Agreement(
        tasks=len(shared),
        alpha=krippendorff_alpha([[vote.choices for vote in votes] for votes in shared]),
        annotators=_by_annotator(shared, multi_label),
        classes=_by_class(shared),
    )


def krippendorff_alpha(units: Iterable[Sequence[object]]) -> float | None:
    """Krippendorff's alpha of nominal values; None where all are equal.

    Parameters
    ----------
    units
        The values given to each unit, two at least.
    """
    totals: Counter[object] = Counter()
    agreeing = 0.0
    for values in units:
        counts = Counter(values)
        totals.update(counts)
        agreeing += sum(k * (k - 1) for k in counts.values()) / (len(values) - 1)
    n = sum(totals.values())
    expected = (n * n - sum(k * k for k in totals.values())) / (n - 1)
    return None if expected == 0 else 1 - (n - agreeing) / expected


def _by_annotator(shared: Iterable[Sequence[Answer]], multi_label: bool) -> tuple[AnnotatorAgreement, ...]:
    equal: Counter[int] = Counter()
    compared: Counter[int] = Counter()
    for votes in shared:
        for vote in votes:
            assert vote.annotator_id is not None and vote.choices is not None
            others = resolve_label([_unstarred(v) for v in votes if v is not vote], multi_label)
            if others.choices is not None:
                compared[vote.annotator_id] += 1
                equal[vote.annotator_id] += set(others.choices) == set(vote.choices)
    found = (AnnotatorAgreement(who, n, equal[who] / n) for who, n in compared.items())
    return tuple(sorted(found, key=lambda a: (a.share, a.annotator)))


def _unstarred(answer: Answer) -> Answer:
    # A star makes an answer the label of its task; among annotators it is one answer of several.
    return replace(answer, ground_truth=False)


def _by_class(shared: Iterable[Sequence[Answer]]) -> tuple[ClassAgreement, ...]:
    given: Counter[str] = Counter()
    agreeing: defaultdict[str, float] = defaultdict(float)
    for votes in shared:
        counts = Counter(choice for vote in votes for choice in vote.choices or ())
        for choice, k in counts.items():
            given[choice] += k
            agreeing[choice] += k * (k - 1) / (len(votes) - 1)
    found = (ClassAgreement(choice, n, agreeing[choice] / n) for choice, n in given.items())
    return tuple(sorted(found, key=lambda c: (c.share, c.choice)))
