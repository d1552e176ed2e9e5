"""How well the model does, by the control sample: an estimate with its interval, and the curve over the rounds.

Each round draws control tasks uniformly from the tasks nobody has answered, and its head says what it would answer
before anybody does. So the share of them on which the annotators said the same estimates, without bias, how well that
head does on the tasks that were unanswered then. That is not how well it does on all tasks: a strategy takes the hard
ones out.

Few answers come a round, so rounds are pooled, the newest first. Their heads were fitted on fewer labels than the one
in force, so the estimate lags behind it; while the head learns, it errs downwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from backend.store.control_sample import ControlRound

LEAST_ANSWERS = 10
"""With fewer control answers nothing is said."""
MOST_ANSWERS = 40
"""An estimate reaches back over no more rounds than it takes to have so many."""
# Two-sided 95% of a normal distribution.
Z = 1.959964


@dataclass(frozen=True)
class Estimate:
    """Share of control tasks that the head, before it knew the answer, answered as the annotators did.

    Attributes
    ----------
    answers, right : control answers of the rounds `since` to `until`, and on how many of them the head was right
    prefilled : so many of them were given to forms in which the head's answer was ticked, which flatters it
    since, until : numbers of the first and the last of these rounds
    labels : the last of these heads was fitted on so many
    accuracy, low, high : right / answers, and the Wilson interval of 95%
    """

    since: int
    until: int
    labels: int
    answers: int
    right: int
    prefilled: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """The estimate over the newest control answers, and over the first ones where these are others.

    measure: "accuracy", or "exact match" where a task may have several labels: all of them must be right. That is a
    share of answers, which other measures of several labels are not, and so has an interval while they are few.
    control_answers: all there are, of the label config in force.
    """

    measure: Literal["accuracy", "exact match"]
    control_answers: int
    now: Estimate | None
    first: Estimate | None


def measure_accuracy(rounds: Sequence[ControlRound], *, multi_label: bool) -> Accuracy:
    """What the control answers of these rounds, the earliest first, say."""
    now, first = estimate(rounds), next(accuracy_curve(rounds), None)
    apart = now is not None and first is not None and first.until < now.since
    return Accuracy(
        measure="exact match" if multi_label else "accuracy",
        control_answers=sum(r.answers for r in rounds),
        now=now,
        first=first if apart else None,
    )


def accuracy_curve(rounds: Sequence[ControlRound]) -> Iterator[Estimate]:
    """The estimate as it stood after each round, from the first on that had enough answers."""
    for count in range(1, len(rounds) + 1):
        if (found := estimate(rounds[:count])) is not None:
            yield found


def estimate(rounds: Sequence[ControlRound]) -> Estimate | None:
    """Pool the newest of these rounds; None while they have fewer than `LEAST_ANSWERS` control answers.

    As few as have half of all control answers, but `LEAST_ANSWERS` at least and `MOST_ANSWERS` where there are: a
    model gains about as much from each doubling of its labels, so half keeps the lag the same while a project grows.
    """
    wanted = min(max(sum(r.answers for r in rounds) / 2, LEAST_ANSWERS), MOST_ANSWERS)
    answers, pooled = 0, []
    for one in reversed(rounds):
        pooled.append(one)
        answers += one.answers
        if answers >= wanted:
            break
    if answers < LEAST_ANSWERS:
        return None
    right = sum(r.right for r in pooled)
    low, high = wilson_interval(right, answers)
    return Estimate(
        since=pooled[-1].number,
        until=pooled[0].number,
        labels=pooled[0].labels,
        answers=answers,
        right=right,
        prefilled=sum(r.answers for r in pooled if r.prefilled),
        accuracy=right / answers,
        low=low,
        high=high,
    )


def wilson_interval(right: int, answers: int) -> tuple[float, float]:
    """95% interval of a share; `answers` is at least 1.

    Source: Wilson, Journal of the American Statistical Association 22, 1927.
    """
    share, z2 = right / answers, Z * Z
    middle = share + z2 / (2 * answers)
    half = Z * sqrt(share * (1 - share) / answers + z2 / (4 * answers * answers))
    return max(0.0, (middle - half) / (1 + z2 / answers)), min(1.0, (middle + half) / (1 + z2 / answers))
