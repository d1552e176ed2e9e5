"""Choosing what to ask of two unpaired pools: time and memory, and what lazy farthest-first saves.

    python -m benchmarks.pairing                            # JSON on stdout, a table on stderr
    python -m benchmarks.pairing --items 50000 --strategies three_step pair_coreset --dtype float32

Vectors of length 1 in clusters of low rank, 512 numbers, in memory maps; the frozen vectors and those of the current
model are the same file. 1,000 pairs are known, 40 queries with 8 candidates are asked for. Each case runs once in a
process of its own. Memory: the peak of what the process allocated, and that with the pages of the files it had
mapped, which the system may take back at any time. The loop is what the formula says: one float32 pass over all rows
a pick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from backend.strategies import Pairs, create_strategy, strategy_names
from backend.strategies.kernels.kcenter import FarthestFirst
from backend.strategies.pairing import MODALITIES
from backend.strategies.pairing.spaces import Space

WIDTH = 512
KNOWN = 1000
QUERIES = 40
CLUSTERS = 500
RANK = 24


def write_vectors(path: Path, items: int, dtype: str, noise: float, seed: int) -> None:
    """(items, 512) unit rows; row i of every file of one size lies in cluster i mod CLUSTERS, near the same point."""
    shared = np.random.default_rng(0)
    centres = shared.normal(size=(CLUSTERS, RANK))
    basis = shared.normal(size=(RANK, WIDTH)).astype(np.float32)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(items, WIDTH))
    for begin in range(0, items, 16_384):
        rows = np.arange(begin, min(begin + 16_384, items))
        # The latent point of an item is the same in both files, the noise is not.
        latent = centres[rows % CLUSTERS] + np.random.default_rng([1, begin]).normal(size=(len(rows), RANK))
        block = latent.astype(np.float32) @ basis
        own = np.random.default_rng([seed, begin]).standard_normal(block.shape, dtype=np.float32)
        block += noise * np.sqrt(RANK) * own
        out[rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()


class Memory(threading.Thread):
    """Peaks of the allocated and of the mapped file pages of this process, in MiB, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.allocated = self.both = 0.0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = {
                name: float(text.split()[0]) for name, _, text in (x.partition(":") for x in lines) if "Rss" in name
            }
            self.allocated = max(self.allocated, kib["RssAnon"] / 1024)
            self.both = max(self.both, (kib["RssAnon"] + kib["RssFile"]) / 1024)
            time.sleep(0.1)


def select_once(name: str, folder: Path) -> dict[str, Any]:
    """One selection from the files in ``folder``; runs in a process of its own."""
    memory = Memory()
    memory.start()
    joint = {m: np.load(folder / f"{m}.npy", mmap_mode="r") for m in MODALITIES}
    known = np.repeat(np.arange(KNOWN)[:, None], 2, axis=1)
    askable = {m: np.ones(len(rows), dtype=bool) for m, rows in joint.items()}
    pairs = Pairs(joint, joint, known, askable)
    wall, cpu = time.perf_counter(), time.process_time()
    found = create_strategy(name).select(pairs, QUERIES, np.random.default_rng(0))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    time.sleep(0.2)
    return {
        "strategy": name,
        "items": len(joint["image"]),
        "dtype": str(joint["image"].dtype),
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "allocated_mib": round(memory.allocated),
        "with_file_pages_mib": round(memory.both),
        "queries": len(found.queries),
    }


def farthest_first(folder: Path, picks: int) -> dict[str, Any]:
    """Lazy farthest-first and the plain loop on the same float32 rows; runs in a process of its own."""
    rows = np.load(folder / "image.npy").astype(np.float32)
    space = Space((rows,))
    unit = space.rows(slice(None))
    open_ = np.arange(len(rows)) >= KNOWN
    begin = _clocks()
    search = FarthestFirst(space, np.arange(KNOWN), open_)
    to_pairs = _clocks() - begin
    search.until(picks)
    lazy = _clocks() - begin
    distance = 1.0 - np.concatenate(
        [(unit[first : first + 8192] @ unit[:KNOWN].T).max(axis=1) for first in range(0, len(unit), 8192)]
    )
    distance[~open_] = -np.inf
    taken = []
    begin = _clocks()
    for _ in range(picks):
        taken.append(int(distance.argmax()))
        np.minimum(distance, 1.0 - unit @ unit[taken[-1]], out=distance)
        distance[taken[-1]] = -np.inf
    loop = _clocks() - begin
    return {
        "items": len(rows),
        "picks": picks,
        **_told("distances_to_pairs", to_pairs),
        **_told("lazy_picks", lazy - to_pairs),
        **_told("loop_picks", loop),
        "same_picks": search.found().picks.tolist() == taken,
    }


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _told(name: str, clocks: np.ndarray) -> dict[str, float]:
    return {f"{name}_seconds": round(float(clocks[0]), 2), f"{name}_cpu": round(float(clocks[1]), 2)}


def in_own_process(*arguments: str) -> dict[str, Any]:
    """The JSON that this module prints when it is run with these arguments."""
    command = [sys.executable, "-m", "benchmarks.pairing", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(items: int, dtype: str, strategies: list[str], picks: int) -> dict[str, Any]:
    """Selections at ``items`` a pool, and farthest-first at 50,000."""
    out: dict[str, Any] = {"selections": []}
    with tempfile.TemporaryDirectory() as name:
        for place, modality in enumerate(MODALITIES):
            write_vectors(Path(name) / f"{modality}.npy", items, dtype, 0.6, 10 + place)
        for strategy in strategies:
            out["selections"].append(in_own_process("--select", strategy, "--folder", name))
            print(table(out["selections"][-1:]), file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        write_vectors(Path(name) / "image.npy", 50_000, "float32", 0.6, 10)
        out["farthest_first"] = in_own_process("--loop", str(picks), "--folder", name)
        print(table([out["farthest_first"]]), file=sys.stderr)
    return out


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="items of each pool")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--strategies", nargs="+", default=["three_step"], choices=strategy_names(pairs=True))
    parser.add_argument("--picks", type=int, default=300, help="picks of farthest-first at 50,000 rows")
    parser.add_argument("--select", help=argparse.SUPPRESS)
    parser.add_argument("--loop", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.select:
        print(json.dumps(select_once(given.select, given.folder)))
    elif given.loop:
        print(json.dumps(farthest_first(given.folder, given.loop)))
    else:
        print(json.dumps(measure(given.items, given.dtype, given.strategies, given.picks), indent=1))


if __name__ == "__main__":
    main()
