"""mAP@all in blocks of queries against a plain dense reading of the formula, on the same inputs.

    python -m benchmarks.retrieval_map                           # JSON on stdout, a Markdown table on stderr
    python -m benchmarks.retrieval_map --pairs 2000 8000 --width 128 --classes 24

Both directions are scored. Every reading runs once, in a process of its own on one thread, inputs made beforehand.
CPU time is told beside wall time, and compared, because the machine may be shared; memory is the peak above what was
resident when the reading began. "dense" holds all distances at once and ranks them by sorting indices, as the formula
is written; "blocks" is ``backend.learners.retrieval.two_way_score``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from backend.learners.retrieval import two_way_score

ROOT = Path(__file__).parents[1]
READINGS = ("blocks", "dense")


def pairs(n: int, width: int, n_classes: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Unit float32 rows of two modalities around class centres, and labels of one to three classes a pair; seed 0."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, n_classes, n)
    labels = np.eye(n_classes, dtype=np.int8)[first]
    for chance in (0.5, 0.2):
        more = np.flatnonzero(rng.random(n) < chance)
        labels[more, rng.integers(0, n_classes, len(more))] = 1
    centres = rng.normal(size=(n_classes, width))
    rows = {}
    for modality in ("image", "text"):
        block = labels @ centres + 2.0 * rng.normal(size=(n, width))
        rows[modality] = (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float32)
    return rows, labels


def dense(queries: np.ndarray, items: np.ndarray, labels: np.ndarray) -> float:
    """The formula of ascmr.md section 4 over all pairs at once, float64."""
    asked, given = queries.astype(np.float64), items.astype(np.float64)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    order = np.argsort(1.0 - asked @ given.T, axis=1, kind="stable")
    relevant = np.take_along_axis(labels.astype(np.float32) @ labels.T.astype(np.float32) > 0, order, axis=1)
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, len(items) + 1)
    return float(((relevant * precision).sum(axis=1) / hits[:, -1]).mean())


def resident_mb() -> float:
    """Megabytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peak:
    """The largest resident size while in the block, looked at every 10 ms."""

    def __enter__(self) -> Peak:
        self.begin = self.largest = resident_mb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.largest = max(self.largest, resident_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def worker(reading: str, n: int, width: int, n_classes: int) -> dict[str, Any]:
    """One reading of both directions."""
    rows, labels = pairs(n, width, n_classes)
    with Peak() as peak:
        began, cpu = time.perf_counter(), time.process_time()
        if reading == "blocks":
            found = two_way_score(rows, labels)
            maps = [found.image_to_text.mean, found.text_to_image.mean]
        else:
            maps = [dense(rows["image"], rows["text"], labels), dense(rows["text"], rows["image"], labels)]
        found_in = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    return {
        **{unit: round(seconds, 3) for unit, seconds in found_in.items()},
        "peak_mb": round(peak.largest - peak.begin, 1),
        "map": maps,
    }


def timed(reading: str, n: int, width: int, n_classes: int, cap: float) -> dict[str, Any]:
    """The worker's figures, or {"failed": why}."""
    command = [sys.executable, "-m", "benchmarks.retrieval_map", "--worker", reading]
    command += ["--pairs", str(n), "--width", str(width), "--classes", str(n_classes)]
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=cap,
            cwd=ROOT,
            env={**os.environ, **threads},
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"over {cap:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:120]}
    return dict(json.loads(done.stdout))


def compare(n: int, width: int, n_classes: int, cap: float) -> dict[str, Any]:
    """Both readings of one size, and how they compare."""
    found: dict[str, Any] = {reading: timed(reading, n, width, n_classes, cap) for reading in READINGS}
    line: dict[str, Any] = {"pairs": n, "width": width, "classes": n_classes, **found}
    if all("failed" not in part for part in found.values()):
        blocks, plain = found["blocks"], found["dense"]
        line["largest_difference"] = max(abs(a - b) for a, b in zip(blocks["map"], plain["map"], strict=True))
        line["times_less_cpu"] = round(plain["cpu_s"] / blocks["cpu_s"], 1)
        line["times_less_memory"] = round(plain["peak_mb"] / max(blocks["peak_mb"], 0.1), 1)
    return line


def print_table(lines: list[dict[str, Any]]) -> None:
    """Markdown on stderr."""
    print("\n| pairs | blocks: wall / CPU / memory | dense | less CPU | less memory | difference |", file=sys.stderr)
    print("|---|---|---|---|---|---|", file=sys.stderr)
    for line in lines:
        cells = [
            line[r].get("failed")
            or f"{line[r]['wall_s']:.2f} s / {line[r]['cpu_s']:.2f} / {line[r]['peak_mb']:,.0f} MB"
            for r in READINGS
        ]
        more = [str(line.get(key, "")) for key in ("times_less_cpu", "times_less_memory", "largest_difference")]
        print(f"| {line['pairs']:,} | " + " | ".join(cells + more) + " |", file=sys.stderr)


def main() -> int:
    """Command line; the status says whether both readings agree to 1e-9 wherever both ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[1000, 2000, 4000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--cap", type=float, default=300.0, help="seconds a reading may take")
    parser.add_argument("--worker", choices=READINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args.worker, args.pairs[0], args.width, args.classes)))
        return 0
    lines = [compare(n, args.width, args.classes, args.cap) for n in args.pairs]
    print(json.dumps({"retrieval_map": lines}, indent=1))
    print_table(lines)
    return 0 if all(line.get("largest_difference", 0.0) < 1e-9 for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
