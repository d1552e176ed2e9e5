"""Measurements on a real Label Studio, repeated over sizes: their command line, their server, and what they print."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.labelstudio.local_server import LocalLabelStudio
from tests.live.conftest import fresh_server

Measure = Callable[[LocalLabelStudio, Path, int, int, int], dict[str, Any]]
"""(server, empty folder, size, batches, batch size) -> figures."""


def run(doc: str | None, unit: str, default: int, measure: Measure, columns: Mapping[str, str]) -> None:
    """Measure each size the command line asks for, all on one server; print JSON and a table.

    Parameters
    ----------
    doc
        Of the module whose command line this is.
    unit
        What a size counts, such as "tasks".
    columns
        Head of each column of the table -> its cell, as a format of the figures.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{unit}", type=int, nargs="+", default=[default], dest="sizes", metavar="N")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=20)
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name, fresh_server(Path(name)) as server:
        for size in given.sizes:
            folder = Path(name) / f"{unit}-{size}"
            folder.mkdir()
            results.append(measure(server, folder, size, given.batches, given.batch_size))
    print(json.dumps(results, indent=2))
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for figures in results:
        print(f"| {' | '.join(cell.format(**figures) for cell in columns.values())} |")
