"""A whole study: replay, compare, and write what was found into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.errors import PlotUnavailable
from backend.simulation.cells import CELLS_FILE, D, Replays, run
from backend.simulation.plots import draw
from backend.simulation.results import Comparison, compare, write_results
from backend.simulation.tables import report

RESULTS_FILE = "results.json"
REPORT_FILE = "report.md"


@dataclass(frozen=True)
class Study:
    """comparisons: one for each set, scenario and split; files: what was written; notes: what a reader must know."""

    comparisons: list[Comparison]
    files: list[Path]
    notes: list[str]


def study(sets: Sequence[D], plan: Replays[D], folder: Path, *, jobs: int = 2, fresh: bool = False) -> Study:
    """Replay the plan and write results.json, report.md and a PNG for each set, scenario and split.

    What the folder holds of the same plan is not run again (``cells.run``).

    Raises
    ------
    SimulationError
        A replay failed.
    """
    outcome = run(sets, plan, folder, jobs=jobs, fresh=fresh)
    comparisons = compare(outcome.cells)
    notes = [f"{data.name}: {note}" for data in sets for note in data.notes]
    notes += [f"{left.dataset}: {left.what} is left out: {left.why}" for left in outcome.unsuited]
    about = {"plan": vars(plan), "sets": {data.name: data.facts for data in sets}, "notes": notes}
    write_results(folder / RESULTS_FILE, comparisons, about)
    (folder / REPORT_FILE).write_text("# Label efficiency\n\n" + report(comparisons, notes), encoding="utf-8")
    files = [folder / RESULTS_FILE, folder / REPORT_FILE, folder / CELLS_FILE]
    try:
        files += draw(comparisons, folder)
    except PlotUnavailable as error:
        notes.append(str(error))
    return Study(comparisons, files, notes)
