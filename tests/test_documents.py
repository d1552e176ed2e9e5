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
