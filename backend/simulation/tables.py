"""Results in words: tables in Markdown, and what they mean for somebody who has to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backend.simulation.results import Comparison

# Paired differences within this many standard errors are told as ties.
CLEAR = 2.0


def comparison_table(one: Comparison) -> str:
    """One comparison, the best arm first."""
    modalities = sorted(name[len("contribution_") :] for name in one.arms["random"].last if "contribution_" in name)
    names = [
        "arm", "AULC", "minus random", "ahead", "F1 minus random", "final acc.", "final F1", "labels saved",
        *(f"{name} alone" for name in modalities), *(["dominance"] if modalities else []),
        "NLL", "ECE", "ECE calibrated", "select s", "fit s",
    ]  # fmt: skip
    lines = [_row(names), "|" + "---|" * len(names)]
    for arm in one.ranking():
        own = one.arms[arm]
        to_random = one.difference(arm)
        lines.append(
            _row(
                [
                    f"`{arm}`",
                    f"{100 * float(np.mean(own.areas['accuracy'])):.1f}",
                    str(to_random),
                    f"{to_random.ahead}/{to_random.seeds}",
                    str(one.difference(arm, measure="macro_f1")),
                    f"{100 * own.last['accuracy']:.1f}",
                    f"{100 * own.last['macro_f1']:.1f}",
                    f"{100 * one.saved(arm):.0f}%",
                    *(f"{100 * own.last[f'alone_{name}']:.1f}" for name in modalities),
                    *([f"{own.last['dominance']:.2f}"] if modalities else []),
                    f"{own.last['nll']:.2f}",
                    f"{100 * own.last['ece']:.0f}",
                    f"{100 * own.last['ece_calibrated']:.0f}",
                    f"{own.average['seconds_select']:.3f}",
                    f"{own.average['seconds_fit']:.3f}",
                ]
            )
        )
    return "\n".join(lines)


def matrix(one: Comparison) -> str:
    """Paired difference in AULC, points ± s.e., of the arm of the row minus that of the column."""
    arms = one.ranking()
    lines = [_row(["", *(f"`{arm}`" for arm in arms)]), "|" + "---|" * (len(arms) + 1)]
    for arm in arms:
        against = ["" if arm == other else str(one.difference(arm, other)) for other in arms]
        lines.append(_row([f"`{arm}`", *against]))
    return "\n".join(lines)


def overview(comparisons: Sequence[Comparison], measure: str = "accuracy") -> str:
    """Arms by set and scenario: paired difference to random in the area under the curve; the best mean first."""
    return _across(
        comparisons,
        lambda one, arm: one.difference(arm, "random", measure).mean,
        lambda one, arm: f"{one.difference(arm, 'random', measure)} ({one.difference(arm).seeds})",
        "{:+.1f}",
    )


def against(comparisons: Sequence[Comparison], arm: str) -> str:
    """Arms by set and scenario: how far ``arm`` is ahead of them, paired; the closest first."""
    return _across(
        [one for one in comparisons if arm in one.arms],
        lambda one, other: one.difference(other, arm).mean,
        lambda one, other: "" if other == arm else str(one.difference(arm, other)),
        "{:+.1f}",
        sign=-1.0,
    )


def savings(comparisons: Sequence[Comparison]) -> str:
    """Arms by set and scenario: labels saved, final accuracy, seconds a selection."""
    return _across(
        comparisons,
        lambda one, arm: 100 * one.saved(arm),
        lambda one, arm: (
            f"{100 * one.saved(arm):.0f}%; {100 * one.arms[arm].last['accuracy']:.1f};"
            f" {one.arms[arm].average['seconds_select']:.2f} s"
        ),
        "{:.0f}%",
    )


def _across(
    comparisons: Sequence[Comparison],
    value: Callable[[Comparison, str], float],
    show: Callable[[Comparison, str], str],
    mean: str,
    sign: float = 1.0,
) -> str:
    """A row an arm, the largest mean value first; an arm that was not run everywhere has no mean and stands below."""
    if not comparisons:
        return ""
    values = {
        arm: [value(one, arm) for one in comparisons if arm in one.arms]
        for arm in dict.fromkeys(arm for one in comparisons for arm in one.arms)
    }
    means = {arm: float(np.mean(found)) for arm, found in values.items()}
    everywhere = {arm: len(found) == len(comparisons) for arm, found in values.items()}
    lines = [_row(["arm", *map(_heading, comparisons), "mean"]), "|" + "---|" * (len(comparisons) + 2)]
    for arm in sorted(values, key=lambda arm: (not everywhere[arm], -means[arm])):
        cells = [show(one, arm) if arm in one.arms else "-" for one in comparisons]
        lines.append(_row([f"`{arm}`", *cells, mean.format(sign * means[arm] + 0.0) if everywhere[arm] else "-"]))
    return "\n".join(lines)


def _heading(one: Comparison) -> str:
    extra = [one.scenario] * (one.scenario != "plain") + [one.split] * (one.split != "random")
    return " ".join([one.dataset, *extra]).replace("_", " ")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def report(comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> str:
    """All of it: notes, then for each set, scenario and split the table and the matrix."""
    parts = [f"- {note}" for note in notes]
    for one in comparisons:
        seeds = len(one.arms["random"].seeds)
        parts += [
            f"\n## {one.title}\n",
            f"{one.classes} classes, about {one.pool} items in the pool, {one.scored_on} scored on,"
            f" {one.n_labels[0]} to {one.n_labels[-1]} labels, {seeds} seeds. AULC: mean accuracy over the curve;"
            " differences are paired by seed, points ± standard error; ECE in percent.\n",
            comparison_table(one),
            "\nAULC of the row minus that of the column:\n",
            matrix(one),
        ]
    return "\n".join(parts) + "\n"


def advice(one: Comparison, *, default: str = "auto") -> list[str]:
    """Sentences for somebody who has to choose a strategy for data like these."""
    best = next(arm for arm in one.ranking() if arm != "random")
    gain = one.difference(best)
    said = [
        f"On {one.title}: {_named(best)} served these labels best: {gain} points of accuracy over random in the mean"
        f" of {one.n_labels[0]} to {one.n_labels[-1]} labels, ahead in {gain.ahead} of {gain.seeds} replays,"
        f" {100 * one.saved(best):.0f}% of the labels saved. The best of several looks better than it is."
    ]
    if not _clear(gain.mean, gain.error):
        said = [
            f"On {one.title}: no strategy was clearly better than random; the best, {_named(best)}, was {gain} points"
            " ahead, which may be chance."
        ]
    ties = []
    for arm in one.ranking():
        if arm not in (best, "random"):
            gap = one.difference(best, arm)
            if not _clear(gap.mean, gap.error):
                ties.append(arm)
    if ties:
        said.append(f"Not to be told apart from it at this number of seeds: {', '.join(map(_named, ties))}.")
    if default in one.arms and best != default:
        gap = one.difference(best, default)
        if _clear(gap.mean, gap.error):
            said.append(f"It was clearly ahead of the default, {_named(default)}: by {gap} points.")
        else:
            said.append(f"The default, {_named(default)}, is {gap} points behind, within the noise: leave it.")
    return said


def _clear(mean: float, error: float) -> bool:
    return bool(not np.isnan(error) and mean > CLEAR * error)


def _named(arm: str) -> str:
    cold, arrow, rest = arm.rpartition(">")
    return f"'{rest}' (after a first batch by '{cold}')" if arrow else f"'{rest}'"
