"""The tables of docs/strategies.md from results of `mmal simulate`.

    python -m benchmarks.strategy_tables benchmarks/results/*.json                          # print
    python -m benchmarks.strategy_tables benchmarks/results/*.json --into docs/strategies.md

With --into, what stands between the lines `<!-- results -->` and `<!-- end of results -->` is replaced. Arms of the
same set, scenario and split are put together from all files; differences are paired over the seeds they share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from backend.errors import ReplayInvalid
from backend.simulation.results import Comparison, read_results
from backend.simulation.tables import against, overview, savings

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def tables(comparisons: Sequence[Comparison], arm: str) -> str:
    """All tables in Markdown; ``arm``: the one that the others are held against."""
    plain = [one for one in comparisons if one.scenario == "plain" and one.split == "random"]
    grouped = [one for one in comparisons if one.scenario == "plain" and one.split == "grouped"]
    wanted: list[tuple[str, Sequence[Comparison], Callable[[Sequence[Comparison]], str]]] = [
        ("Area under the accuracy curve minus random's, points ± standard error (seeds)", plain, overview),
        ("The same for macro-F1", plain, lambda found: overview(found, "macro_f1")),
        ("Labels saved; final accuracy; seconds a selection", plain, savings),
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
    made = [(title, make(found)) for title, found, make in wanted if found]
    return "\n\n".join(f"**{title}**\n\n{text}" for title, text in made if text)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the marks.

    Raises
    ------
    ReplayInvalid
        The document lacks them.
    """
    content = document.read_text(encoding="utf-8")
    before, begun, rest = content.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ReplayInvalid(f"{document} lacks the lines {BEGIN} and {END}; put them where the tables belong")
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--arm", default="auto", help="the arm that the others are held against")
    parser.add_argument("--into", type=Path, help="document to write the tables into")
    given = parser.parse_args()
    text = tables(read_results(given.results), given.arm)
    if given.into is None:
        print(text)
    else:
        put_into(given.into, text)


if __name__ == "__main__":
    main()
