"""The documents say what the files beside them say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.simulation.results import read_results
from benchmarks.strategy_tables import marked

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(document: Path) -> set[str]:
    """The anchors that a forge makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


def test_the_tables_of_results_are_those_of_the_replays_that_are_kept() -> None:
    kept = sorted(
        path
        for path in (ROOT / "benchmarks" / "results").glob("*.json")
        if path.name.startswith(("pairing-", "retrieval-", "fluent57", "openclipart16", "tux12"))
    )
    document = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    made = marked(read_results(kept), "auto")
    assert len(made) == 3
    for text, (begin, end) in made:
        assert document.split(f"{begin}\n")[1].split(f"\n{end}")[0] == text, (
            f"{begin}: see benchmarks/strategy_tables.py"
        )


def rows(text: str) -> dict[str, list[str]]:
    """The first table of a text: first cell, without its quotes, to the others."""
    table = re.search(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = rows(re.split(r"\n(?=\| name \| when to use)", (ROOT / "README.md").read_text(encoding="utf-8"))[1])
    told = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    area = rows(told.split("**Area under the accuracy curve minus random's, points ± standard error (seeds)**")[1])
    saved = rows(told.split("**Labels saved; final accuracy**")[1])
    sets = readme["name"][1:]
    columns = [area["arm"].index(name) for name in sets]
    compared = {name: cells[1:] for name, cells in readme.items() if cells[-1].startswith("+")}
    assert {"auto", "dropquery", "margin", "bmmal"} <= compared.keys()
    for name, figures in compared.items():
        arm = area["auto" if name == "auto" else f"random>{name}"]
        assert figures == [arm[column].removesuffix(" (10)") for column in columns], name
    shares = [saved["auto"][saved["arm"].index(name)].partition("%")[0] for name in sets]
    assert "`auto` needed {} %, {} % and {} % fewer labels".format(*shares) in " ".join(
        (ROOT / "README.md").read_text(encoding="utf-8").split()
    )
