"""The tables of docs/results.md from results of `mmal simulate`.

    python -m benchmarks.strategy_tables RESULTS.json ...                          # print
    python -m benchmarks.strategy_tables RESULTS.json ... --into docs/results.md --pictures docs/images

With --into, what stands between the lines `<!-- results -->` and `<!-- end of results -->` is replaced, and likewise
`<!-- pairing results -->` and `<!-- end of pairing results -->` where the files hold replays of pairing, and
`<!-- retrieval results -->` and `<!-- end of retrieval results -->`. Arms of the same set, scenario and split are put
together from all files; differences are paired over the seeds they share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from backend.errors import ReplayInvalid
from backend.simulation.pairing.pools import OUTSIDE, pools_of
from backend.simulation.plots import draw
from backend.simulation.results import Comparison, read_results
from backend.simulation.tables import against, candidates_needed, in_all, overview, pairs_gained, savings

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
PAIRING_BEGIN, PAIRING_END = "<!-- pairing results -->", "<!-- end of pairing results -->"
# Scenarios of pairing that change what the pools hold; a mean over them and over ordinary pools would say nothing.
UNEVEN = ("imbalanced", "uneven")
# More would hide each other: random, the default and what it is held against.
DRAWN = "random auto random>dropquery random>margin random>typiclust random>badge random>bmmal"
RETRIEVAL_BEGIN, RETRIEVAL_END = "<!-- retrieval results -->", "<!-- end of retrieval results -->"


def tables(comparisons: Sequence[Comparison], arm: str) -> str:
    """All tables in Markdown; ``arm``: the one that the others are held against."""
    plain = [one for one in comparisons if one.scenario == "plain" and one.split == "random"]
    grouped = [one for one in comparisons if one.scenario == "plain" and one.split == "grouped"]
    wanted: list[tuple[str, Sequence[Comparison], Callable[[Sequence[Comparison]], str]]] = [
        (
            f"All {len(comparisons)} sets, scenarios and splits together: area minus random's; in how many of them"
            " clear, and in brackets by the corrected error",
            comparisons if len(comparisons) > 1 else [],
            lambda found: in_all(found, arm),
        ),
        ("Area under the accuracy curve minus random's, points ± standard error (seeds)", plain, overview),
        ("The same for macro-F1", plain, lambda found: overview(found, "macro_f1")),
        ("Labels saved; final accuracy", plain, savings),
        (f"`{arm}` minus the others, paired", plain, lambda found: against(found, arm)),
        ("Near-duplicates on one side (grouped split): area minus random's", grouped, overview),
        (f"Grouped split: `{arm}` minus the others, paired", grouped, lambda found: against(found, arm)),
    ]
    changed = [one for one in comparisons if one.scenario != "plain"]
    for dataset, split in dict.fromkeys((one.dataset, one.split) for one in changed):
        here = [one for one in changed if (one.dataset, one.split) == (dataset, split)]
        title = f"{dataset}, scenarios" + (", grouped split" if split == "grouped" else "")
        wanted += [
            (f"{title}: area under the accuracy curve minus random's", here, overview),
            (f"{title}: macro-F1", here, lambda found: overview(found, "macro_f1")),
            (f"{title}: `{arm}` minus the others, paired", here, lambda found: against(found, arm)),
        ]
    return _together(wanted)


def pairing_tables(comparisons: Sequence[Comparison]) -> str:
    """The same of replays of pairing, first those whose annotator answers as the product's form lets them."""
    by_form = [one for one in comparisons if not one.scenario.endswith(OUTSIDE)]
    outside = [one for one in comparisons if one.scenario.endswith(OUTSIDE)]
    found = (
        _of_one_annotator(by_form, ""),
        _of_one_annotator(outside, "Counterparts outside the candidates found: "),
    )
    return "\n\n".join(text for text in found if text)


def _of_one_annotator(comparisons: Sequence[Comparison], said: str) -> str:
    ordinary = [one for one in comparisons if pools_of(one.scenario) not in UNEVEN]
    uneven = [one for one in comparisons if pools_of(one.scenario) in UNEVEN]
    couples = [one for one in ordinary if "group" in one.arms[one.yardstick.reference].areas]
    wanted: list[tuple[str, Sequence[Comparison], Callable[[Sequence[Comparison]], str]]] = [
        ("pairs gained; share of own questions whose counterpart was shown", ordinary, pairs_gained),
        ("area under the curve of recall@1 minus random's, points ± standard error (seeds)", ordinary, overview),
        ("the same for recall@10", ordinary, lambda found: overview(found, "recall_10")),
        ("the same for the group score of couples", couples, lambda found: overview(found, "group")),
        ("questions saved; final recall@1", ordinary, savings),
        (
            "candidates for 90% coverage; coverage of everything open; of the arm's own questions",
            ordinary if said else [],
            candidates_needed,
        ),
        ("pools of uneven size or classes of steep sizes: pairs gained; shown", uneven, pairs_gained),
        ("the same pools: recall@1 minus random's", uneven, overview),
        ("the same pools: recall@10", uneven, lambda found: overview(found, "recall_10")),
        ("the same pools: questions saved; final recall@1", uneven, savings),
    ]
    return _together([((said or "By the form: ") + title, found, make) for title, found, make in wanted])


def retrieval_tables(comparisons: Sequence[Comparison]) -> str:
    """The same of replays of retrieval; other models than the default one are held against it under random labels."""
    plain = [one for one in comparisons if one.scenario == "plain"]
    return _together(
        [
            ("Area under the curve of mAP@all minus random's, points ± standard error (seeds)", plain, overview),
            ("The same, averaged within each label first", plain, lambda found: overview(found, "map_labels")),
            ("Labels saved; final mAP@all", plain, savings),
            ("Models under random labels: area minus that of the default", _models(comparisons), overview),
            (
                "Models under random labels, averaged within each label first",
                _models(comparisons),
                lambda found: overview(found, "map_labels"),
            ),
        ]
    )


def _models(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """For each set the random arm of all its scenarios, the plain one as what the others are held against."""
    found = []
    for plain in comparisons:
        others = {one.scenario: one.arms["random"] for one in comparisons if one.dataset == plain.dataset}
        if plain.scenario == "plain" and len(others) > 1:
            found.append(replace(plain, arms={"random": others.pop("plain"), **others}))
    return found


def _together(wanted: Sequence[tuple[str, Sequence[Comparison], Callable[[Sequence[Comparison]], str]]]) -> str:
    made = [(title, make(found)) for title, found, make in wanted if found]
    return "\n\n".join(f"**{title}**\n\n{text}" for title, text in made if text)


def pictures(comparisons: Sequence[Comparison], arms: Sequence[str], folder: Path) -> list[Path]:
    """Curves of these arms on each set as it is, as ``replay_SET.png``."""
    plain = [one for one in comparisons if one.scenario == "plain" and one.split == "random"]
    shown = [replace(one, arms={arm: found for arm, found in one.arms.items() if arm in arms}) for one in plain]
    drawn = zip(shown, draw(shown, folder), strict=True)
    return [path.rename(folder / f"replay_{one.dataset}.png") for one, path in drawn]


def put_into(document: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the marks.

    Raises
    ------
    ReplayInvalid
        The document lacks them.
    """
    content = document.read_text(encoding="utf-8")
    begin, end = marks
    before, begun, rest = content.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ReplayInvalid(f"{document} lacks the lines {begin} and {end}; put them where the tables belong")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def marked(read: Sequence[Comparison], arm: str) -> list[tuple[str, tuple[str, str]]]:
    """The tables of each task of which there are replays, and the marks between which they belong."""
    tasks: dict[str, tuple[Callable[[Sequence[Comparison]], str], tuple[str, str]]] = {
        "classification": (lambda found: tables(found, arm), (BEGIN, END)),
        "pairing": (pairing_tables, (PAIRING_BEGIN, PAIRING_END)),
        "retrieval": (retrieval_tables, (RETRIEVAL_BEGIN, RETRIEVAL_END)),
    }
    found = {task: [one for one in read if one.task == task] for task in tasks}
    return [(make(found[task]), marks) for task, (make, marks) in tasks.items() if found[task]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--arm", default="auto", help="the arm that the others are held against")
    parser.add_argument("--into", type=Path, help="document to write the tables into")
    parser.add_argument("--pictures", type=Path, help="folder for curves of the sets as they are")
    parser.add_argument("--drawn", default=DRAWN, help="the arms of these curves, several apart by spaces")
    given = parser.parse_args()
    read = read_results(given.results)
    for text, marks in marked(read, given.arm):
        if given.into is None:
            print(text)
        else:
            put_into(given.into, text, marks)
    if given.pictures is not None:
        pictures([one for one in read if one.task == "classification"], given.drawn.split(), given.pictures)


if __name__ == "__main__":
    main()
