"""Results in words: tables in Markdown, and what they mean for somebody who has to choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from backend.simulation.results import ArmResult, Comparison, Difference

# What ± is in every table.
_ERRORS = (
    "differences are paired by seed, points ± standard error over seeds, which covers another draw of start, split"
    " and noise from this set and not another set"
)


def _standing(one: Comparison, arm: str) -> list[str]:
    """What every table begins a row with: arm, area, difference to the reference, in how many seeds it is ahead."""
    to_reference = one.difference(arm)
    return [
        f"`{arm}`",
        f"{100 * float(np.mean(one.arms[arm].areas[one.yardstick.measure])):.1f}",
        str(to_reference),
        f"{to_reference.ahead}/{to_reference.seeds}",
    ]


def comparison_table(one: Comparison) -> str:
    """One comparison, the best arm first."""
    reference = one.arms[one.yardstick.reference]
    modalities = sorted(name[len("contribution_") :] for name in reference.last if "contribution_" in name)
    names = [
        "arm", "AULC", "minus random", "ahead", "F1 minus random", "final acc.", "final F1", "labels saved",
        *(f"{name} alone" for name in modalities), *(["dominance"] if modalities else []),
        "NLL", "ECE", "ECE calibrated", "select s", "fit s",
    ]  # fmt: skip

    def cells(arm: str, own: ArmResult) -> list[str]:
        return [
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

    return _ranked(one, names, cells)


def matrix(one: Comparison) -> str:
    """Paired difference in AULC, points ± s.e., of the arm of the row minus that of the column."""
    arms = one.ranking()
    lines = [row(["", *(f"`{arm}`" for arm in arms)]), "|" + "---|" * (len(arms) + 1)]
    for arm in arms:
        against = ["" if arm == other else str(one.difference(arm, other)) for other in arms]
        lines.append(row([f"`{arm}`", *against]))
    return "\n".join(lines)


def pairing_table(one: Comparison) -> str:
    """The same for pairing: recall at three depths, the score of couples, and how far down the candidates the truth
    was when a question was asked."""
    groups = "group" in one.arms[one.yardstick.reference].areas
    names = [
        "arm", "AULC", "minus random", "ahead", "R@5", "R@10", *(["group"] if groups else []), "final R@1",
        *(["final group"] if groups else []), "questions saved", "pairs", "about images", "shown among 8",
        "control's rank", "own rank", "select s", "fit s",
    ]  # fmt: skip

    def cells(arm: str, own: ArmResult) -> list[str]:
        return [
            *(str(one.difference(arm, measure=name)) for name in ("recall_5", "recall_10")),
            *([str(one.difference(arm, measure="group"))] if groups else []),
            f"{100 * own.last['recall_1']:.1f}",
            *([f"{100 * own.last['group']:.1f}"] if groups else []),
            f"{100 * one.saved(arm):.0f}%",
            _told(own.last, "pairs", "{:.0f}"),
            *(_told(own.average, name, "{:.0%}") for name in ("images_asked", "acquired_shown")),
            *(_told(own.average, name, "{:.0f}") for name in ("audit_rank", "acquired_rank")),
            f"{own.average['seconds_select']:.3f}",
            f"{own.average['seconds_fit']:.2f}",
        ]

    return _ranked(one, names, cells)


def retrieval_table(one: Comparison) -> str:
    """The same for retrieval: mAP@all both ways, and averaged within each label first."""
    names = [
        "arm", "AULC", "minus random", "ahead", "by label minus random", "image to text", "text to image",
        "final mAP", "final by label", "labels saved", "labels seen", "select s", "fit s",
    ]  # fmt: skip

    def cells(arm: str, own: ArmResult) -> list[str]:
        ways = ("map_labels", "map_image_to_text", "map_text_to_image")
        return [
            *(str(one.difference(arm, measure=name)) for name in ways),
            *(_told(own.last, name, "{:.1%}") for name in ("map", "map_labels")),
            f"{100 * one.saved(arm):.0f}%",
            _told(own.last, "classes_seen", "{:.0%}"),
            _told(own.average, "seconds_select", "{:.3f}"),
            _told(own.average, "seconds_fit", "{:.2f}"),
        ]

    return _ranked(one, names, cells)


def multi_label_table(one: Comparison) -> str:
    """The same where an item may have several labels: average precision, F1, and all labels right."""
    modalities = sorted(name[len("map_") :] for name in one.arms[one.yardstick.reference].last if "map_" in name)
    names = [
        "arm", "AULC", "minus random", "ahead", "micro F1 minus random", "macro F1 minus random",
        "all right minus random", "final mAP", "final micro F1", "final all right", "labels saved",
        *(f"mAP of {name} alone" for name in modalities), "NLL", "ECE", "select s", "fit s",
    ]  # fmt: skip

    def cells(arm: str, own: ArmResult) -> list[str]:
        return [
            *(str(one.difference(arm, measure=name)) for name in ("micro_f1", "macro_f1", "accuracy")),
            *(f"{100 * own.last[name]:.1f}" for name in ("map", "micro_f1", "accuracy")),
            f"{100 * one.saved(arm):.0f}%",
            *(f"{100 * own.last[f'map_{name}']:.1f}" for name in modalities),
            f"{own.last['nll']:.2f}",
            f"{100 * own.last['ece']:.0f}",
            f"{own.average['seconds_select']:.3f}",
            f"{own.average['seconds_fit']:.3f}",
        ]

    return _ranked(one, names, cells)


def candidates_needed(comparisons: Sequence[Comparison]) -> str:
    """Arms by set and scenario: candidates that 90% coverage asks for; the share of all open items whose counterpart
    was among them, and of the questions that the arm itself chose."""
    return _across(
        comparisons,
        lambda one, arm: 100 * one.arms[arm].average.get("covered_open", float("nan")),
        lambda one, arm: (
            f"{_told(one.arms[arm].average, 'candidates_wanted', '{:.0f}')};"
            f" {_told(one.arms[arm].average, 'covered_open', '{:.0%}')};"
            f" {_told(one.arms[arm].average, 'covered_acquired', '{:.0%}')}"
        ),
        "{:.0f}%",
    )


def pairs_gained(comparisons: Sequence[Comparison]) -> str:
    """Arms by set and scenario: pairs known at the end; the share of the arm's own questions whose counterpart was
    among the candidates."""

    def told(one: Comparison, arm: str) -> str:
        own = one.arms[arm]
        return f"{own.last['pairs']:.0f}; {_told(own.average, 'acquired_shown', '{:.0%}')}"

    return _across(comparisons, lambda one, arm: one.arms[arm].last["pairs"], told, "{:.0f}")


def _ranked(one: Comparison, names: Sequence[str], cells: Callable[[str, ArmResult], list[str]]) -> str:
    """A line for each arm, the best first: how it stands, and behind that its cells."""
    lines = [row(names), "|" + "---|" * len(names)]
    lines += [row([*_standing(one, arm), *cells(arm, one.arms[arm])]) for arm in one.ranking()]
    return "\n".join(lines)


def _told(measured: Mapping[str, float], name: str, form: str) -> str:
    return form.format(measured[name]) if name in measured else "-"


def overview(comparisons: Sequence[Comparison], measure: str | None = None) -> str:
    """Arms by set and scenario: paired difference to random in the area under the curve; the best mean first."""
    return _across(
        comparisons,
        lambda one, arm: one.difference(arm, measure=measure).mean,
        lambda one, arm: f"{one.difference(arm, measure=measure)} ({one.difference(arm).seeds})",
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


def in_all(comparisons: Sequence[Comparison], arm: str) -> str:
    """Arms over all sets, scenarios and splits at once: in how many they are clearly above and clearly below random
    (``Difference.sign``; in brackets by the corrected error) of those they were run in, and how far ``arm`` is ahead;
    the best mean first."""
    lines = []
    for own in dict.fromkeys(own for one in comparisons for own in one.arms):
        run = [one for one in comparisons if own in one.arms]
        found = [one.difference(own) for one in run]
        mean, *clear = _counted(found)
        lead = [""] * 3
        if own != arm and (behind := [one.difference(arm, own) for one in run if arm in one.arms]):
            lead = _counted(behind)
        lowest = f"{min(difference.mean for difference in found):+.1f}"
        cells = [f"`{own}`", mean, lowest, *clear, str(len(run)), *lead]
        place = -float(np.mean([difference.mean for difference in found]))
        lines.append((len(run) < len(comparisons), place, row(cells)))
    names = [
        "arm", "mean", "lowest", "clearly above random", "clearly below", "of",
        f"`{arm}` ahead", f"`{arm}` clearly ahead", f"`{arm}` clearly behind",
    ]  # fmt: skip
    return "\n".join([row(names), "|" + "---|" * len(names), *(line for *_, line in sorted(lines))])


def _counted(differences: Sequence[Difference]) -> list[str]:
    """The mean of differences, how many are clearly above nothing and how many clearly below; in brackets, by the
    corrected error."""
    mean = np.mean([difference.mean for difference in differences])
    signs, corrected = ([d.sign(corrected=wider) for d in differences] for wider in (False, True))
    return [f"{mean:+.1f}", *(f"{signs.count(sign)} ({corrected.count(sign)})" for sign in (1, -1))]


def savings(comparisons: Sequence[Comparison]) -> str:
    """Arms by set and scenario: labels saved, the headline at the end."""
    return _across(
        comparisons,
        lambda one, arm: 100 * one.saved(arm),
        lambda one, arm: f"{100 * one.saved(arm):.0f}%; {100 * one.arms[arm].last[one.yardstick.measure]:.1f}",
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
    lines = [row(["arm", *map(_heading, comparisons), "mean"]), "|" + "---|" * (len(comparisons) + 2)]
    for arm in sorted(values, key=lambda arm: (not everywhere[arm], -means[arm])):
        cells = [show(one, arm) if arm in one.arms else "-" for one in comparisons]
        lines.append(row([f"`{arm}`", *cells, mean.format(sign * means[arm] + 0.0) if everywhere[arm] else "-"]))
    return "\n".join(lines)


def _heading(one: Comparison) -> str:
    extra = [one.scenario] * (one.scenario != "plain")
    # The other tasks know one split only.
    extra += [one.split] * (one.split != "random" and one.task in ("classification", "multi_label"))
    return " ".join([one.dataset, *extra]).replace("_", " ")


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def report(comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> str:
    """All of it: notes, then for each set, scenario and split the table and the matrix."""
    parts = [f"- {note}" for note in notes]
    for one in comparisons:
        said, table = _TOLD[one.task]
        parts += [
            f"\n## {one.title}\n",
            said(one),
            table(one),
            "\nAULC of the row minus that of the column:\n",
            matrix(one),
        ]
        if one.task == "pairing":
            parts += ["\nCandidates that 90% coverage asks for; coverage of all open items; of own questions:\n"]
            parts += [candidates_needed([one])]
    return "\n".join(parts) + "\n"


def _said(one: Comparison) -> str:
    return (
        f"{one.classes} classes, about {one.pool} items in the pool, {one.scored_on} scored on,"
        f" {one.n_labels[0]} to {one.n_labels[-1]} labels, {len(one.arms['random'].seeds)} seeds. AULC: mean accuracy"
        f" over the curve; {_ERRORS}; ECE in percent.\n"
    )


def _said_of_several(one: Comparison) -> str:
    return (
        f"{one.classes} labels, about {one.pool} items in the pool, {one.scored_on} scored on, {one.n_labels[0]} to"
        f" {one.n_labels[-1]} labelled items, {len(one.arms['random'].seeds)} seeds. AULC: mean over the curve of the"
        " average precision, averaged over labels; all right: share of the items with every label right;"
        f" {_ERRORS}; NLL and ECE of single yes-no answers, ECE in percent.\n"
    )


def _said_of_pairing(one: Comparison) -> str:
    seeds = len(one.arms[one.yardstick.reference].seeds)
    return (
        f"About {one.pool} pairs hidden in the pools, {one.scored_on} scored on, {one.n_labels[0]} to"
        f" {one.n_labels[-1]} questions, the first {one.n_labels[0]} the same random ones for all, {seeds} seeds."
        f" AULC: mean recall@1 over the curve, both ways; {_ERRORS}."
        " Ranks: median place of the true counterpart when a question was asked.\n"
    )


def _said_of_retrieval(one: Comparison) -> str:
    return (
        f"{one.classes} labels, about {one.pool} pairs in the pool, {one.scored_on} scored on, {one.n_labels[0]} to"
        f" {one.n_labels[-1]} labelled pairs, the first {one.n_labels[0]} the same random ones for all,"
        f" {len(one.arms['random'].seeds)} seeds. AULC: mean over the curve of mAP@all, both ways; by label: averaged"
        f" over the queries of each label first; {_ERRORS}.\n"
    )


_TOLD: Mapping[str, tuple[Callable[[Comparison], str], Callable[[Comparison], str]]] = {
    "classification": (_said, comparison_table),
    "multi_label": (_said_of_several, multi_label_table),
    "pairing": (_said_of_pairing, pairing_table),
    "retrieval": (_said_of_retrieval, retrieval_table),
}


# What an admin reads of: the headline of the tasks whose own labels can be replayed.
_POINTS = {"classification": "accuracy", "multi_label": "mean average precision"}


def advice(one: Comparison, *, default: str = "auto") -> list[str]:
    """Sentences for somebody who has to choose a strategy for data like these."""
    best = next(arm for arm in one.ranking() if arm != "random")
    gain = one.difference(best)
    said = [
        f"On {one.title}: {_named(best)} served these labels best: {gain} points of {_POINTS[one.task]} over random"
        f" in the mean of {one.n_labels[0]} to {one.n_labels[-1]} labels, ahead in {gain.ahead} of {gain.seeds}"
        f" replays, {100 * one.saved(best):.0f}% of the labels saved. The best of several looks better than it is."
    ]
    if gain.sign() < 1:
        said = [
            f"On {one.title}: no strategy was clearly better than random; the best, {_named(best)}, was {gain} points"
            " ahead, which may be chance."
        ]
    ties = []
    for arm in one.ranking():
        if arm not in (best, "random"):
            gap = one.difference(best, arm)
            if gap.sign() < 1:
                ties.append(arm)
    if ties:
        said.append(f"Not to be told apart from it at this number of seeds: {', '.join(map(_named, ties))}.")
    if default in one.arms and best != default:
        gap = one.difference(best, default)
        if gap.sign() > 0:
            said.append(f"It was clearly ahead of the default, {_named(default)}: by {gap} points.")
        else:
            said.append(f"The default, {_named(default)}, is {gap} points behind, within the noise: leave it.")
    return said


def _named(arm: str) -> str:
    cold, arrow, rest = arm.rpartition(">")
    return f"'{rest}' (after a first batch by '{cold}')" if arrow else f"'{rest}'"
