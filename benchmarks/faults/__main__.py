"""Faults and load on a real Label Studio and a real backend, all on loopback.

    python -m benchmarks.faults team soak --minutes 15 --json figures.json

Each scenario starts from nothing and ends by itself. Prints its figures as JSON and as a row of a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

from benchmarks.faults import label_studio_ill, load, storage, worker_kills
from benchmarks.faults.trial import note

SCENARIOS = {
    "team": load.team,
    "soak": load.soak,
    "burst": load.burst,
    "kills": worker_kills.kills,
    **{illness: label_studio_ill.scenario(illness) for illness in ("slow", "errors", "cuts", "token")},
    "disk_full": storage.disk_full,
    "damaged": storage.damaged,
}
_COLUMNS = ("minutes", "labels_sent", "labels_learnt", "lost", "rounds_completed", "longest_without_queue")


def row(name: str, figures: dict[str, Any]) -> str:
    """One line of the table."""
    return f"| `{name}` | " + " | ".join(str(figures.get(column, "")) for column in _COLUMNS) + " |"


def main() -> int:
    """Run the scenarios named; the status says whether every label that was sent is learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--minutes", type=float, help="how long; each scenario has a default of its own")
    parser.add_argument("--tasks", type=int, help="tasks of the project")
    parser.add_argument("--count", type=int, help="webhooks of burst, times a worker is killed")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), help="database of the backend; of team only")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    asked = {n: value for n in ("minutes", "tasks", "count", "store") if (value := getattr(given, n)) is not None}
    for name in given.names:
        if strange := asked.keys() - signature(SCENARIOS[name]).parameters.keys():
            parser.error(f"{name} has no option --{strange.pop()}")
    found: dict[str, dict[str, Any]] = {}
    for name in given.names:
        note(f"scenario {name}")
        with tempfile.TemporaryDirectory() as folder:
            found[name] = SCENARIOS[name](Path(folder), **asked)
        print(json.dumps({name: found[name]}, indent=2), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=2) + "\n")
    print("\n| scenario | " + " | ".join(column.replace("_", " ") for column in _COLUMNS) + " |")
    print("|---" * (len(_COLUMNS) + 1) + "|")
    for name, figures in found.items():
        print(row(name, figures))
    return int(any(figures["lost"] or figures["invented"] or figures["wrong"] for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
