"""Why a task comes now, in one of eight fixed sentences. None names a label, so none suggests an answer."""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "control": "Why now: control sample, drawn at random to measure how well the model does.",
    "random": "Why now: drawn at random.",
    "typical": "Why now: typical of a group of similar tasks that has no answer yet.",
    "uncovered": "Why now: unlike anything answered so far.",
    "disagree": "Why now: the image and the text point to different answers.",
    "uncertain": "Why now: the model hesitates between answers here.",
    "informative": "Why now: its answer tells the model most about many similar tasks.",
    "reserve": "Why now: next in line while the following batch is chosen.",
}

PAIR_REASONS: Mapping[str, str] = {
    "control": "Why now: control sample, drawn at random to measure how good the suggestions are.",
    "random": "Why now: drawn at random.",
    "uncovered": "Why now: unlike anything paired so far.",
    "narrow_margin": "Why now: several candidates look about equally good to the model.",
    "likely": "Why now: chosen to gain as many pairs as can be.",
    "confusable": "Why now: easily mistaken for something that is already paired.",
    "conflict": "Why now: two earlier answers contradict each other here.",
    "reserve": "Why now: next in line while the following batch is chosen.",
}

# A pick is called uncertain or uncovered when it is so among the top fifth of the pool.
HIGH = 0.8


def sentence(code: str, *, pairing: bool = False) -> str:
    """What an annotator reads for this code."""
    return (PAIR_REASONS if pairing else REASONS)[code]


def reason_of(role: str, named: str, figures: Mapping[str, float], *, has_model: bool = True) -> str:
    """The code of the sentence that tells most about this pick.

    Parameters
    ----------
    role
        "batch", "control" or "reserve".
    named
        What the strategy that picked says of all its picks, such as "random"; empty where the figures tell.
    figures
        What the strategy says of the pick: percentiles in the pool in [0, 1], disagreement 0 or 1.
    has_model
        Before there is a model a control sample measures none: it is drawn at random, and no more is said.
    """
    if role == "control" and not has_model:
        return "random"
    if role in ("control", "reserve"):
        return role
    if named:
        return named
    if figures.get("conflict", 0.0) >= HIGH:
        return "disagree"
    uncertainty, novelty = figures.get("uncertainty", 0.0), figures.get("novelty", 0.0)
    uncertain = uncertainty >= HIGH
    if uncertain and figures.get("disagreement", 0.0) > 0:
        return "disagree"
    if novelty >= HIGH and novelty >= uncertainty:
        return "uncovered"
    return "uncertain" if uncertain else "informative"
