"""Acquisition side by side with other libraries: time, peak memory, and how both grow with n and k.

    python -m benchmarks.acquisition                          # JSON on stdout, a Markdown table on stderr
    python -m benchmarks.acquisition --cases 50000:1000 --strategies badge coreset --cap 900
    python -m benchmarks.acquisition --large 1000000:1000     # every strategy of ours on 512 + 512 numbers on disk

All read the same arrays: vectors of length 1 in classes of low rank, probabilities of a linear rule, 100 labelled
records. Each acquisition runs once in a process of its own, inputs loaded and probabilities computed beforehand, so
that only the choice is timed; a peer that meets the limit of memory or time is reported as such. Peers are installed
from benchmarks/peers.txt into .venv-peers, once; "sequential" is a plain float32 loop of ours that makes one pass
over the records for each pick, as the authors of BADGE and CoreSet do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from backend.strategies import strategy_names

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
LABELLED = 100
# Who is asked for what; a library that has no such strategy, or whose code is another method, is left out.
FIELD = {
    "badge": ("ours", "sequential", "scikit-activeml", "small-text"),
    "coreset": ("ours", "sequential", "scikit-activeml", "small-text"),
    "typiclust": ("ours", "scikit-activeml"),
    "maxherding": ("ours", "scikit-activeml"),
}
# What this project promises at 50,000 records and 1,000 picks: (strategy, rival, times as fast).
FLOORS = (("badge", "sequential", 12.0), ("coreset", "scikit-activeml", 60.0))


def install_peers() -> str | None:
    """Make .venv-peers if it is not there; the reason if that failed."""
    if not (PEERS / ".done").exists():
        for command in (
            [sys.executable, "-m", "venv", str(PEERS)],
            [str(PEERS / "bin/pip"), "install", "-q", "-r", str(ROOT / "benchmarks/peers.txt")],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        (PEERS / ".done").touch()
    return None


def unit_rows(labels: np.ndarray, n_classes: int, width: int, seed: int, part: int = 0) -> np.ndarray:
    """Rows of length 1, (n, width) float32: a class is a centre, 16 directions of its own and a little noise.

    seed fixes the classes, part the rows: parts of one pool are made one after the other.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_classes, width), dtype=np.float32)
    basis = rng.standard_normal((n_classes, 16, width), dtype=np.float32) / 4
    rng = np.random.default_rng([seed, part])
    out = np.empty((len(labels), width), dtype=np.float32)
    for number in range(n_classes):
        for rows in np.array_split(np.flatnonzero(labels == number), 1 + len(labels) // n_classes // 20_000):
            block = rng.standard_normal((len(rows), 16), dtype=np.float32) @ basis[number] + centres[number]
            block += 0.3 * rng.standard_normal(block.shape, dtype=np.float32)
            out[rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def write_case(folder: Path, n: int, n_classes: int, width: int) -> None:
    """The arrays of one pool size, seed 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    vectors = unit_rows(labels, n_classes, width, 1)
    labelled = np.zeros(n, dtype=bool)
    labelled[rng.permutation(n)[:LABELLED]] = True
    # A linear rule that is right four times in five: the class means seen through noise.
    means = np.stack([vectors[labels == c][:50].mean(axis=0) for c in range(n_classes)])
    logits = 25.0 * (vectors @ means.T) + 2.2 * rng.standard_normal((n, n_classes), dtype=np.float32)
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.save(folder / "probabilities.npy", (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32))
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "labelled.npy", labelled)


def write_large(folder: Path, n: int, n_classes: int, width: int) -> None:
    """Two modalities of ``width`` float16 numbers on disk, 300 labelled."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    labelled = np.zeros(n, dtype=bool)
    labelled[rng.permutation(n)[:300]] = True
    np.save(folder / "labels.npy", labels)
    np.save(folder / "labelled.npy", labelled)
    for seed, modality in enumerate(("image", "text"), start=1):
        out = np.lib.format.open_memmap(folder / f"{modality}.npy", "w+", np.float16, (n, width))
        for begin in range(0, n, 100_000):
            part = slice(begin, begin + 100_000)
            out[part] = unit_rows(labels[part], n_classes, width, seed, begin)
        out.flush()


def limited(gigabytes: float) -> None:
    """Cap the address space of the child, so that a peer fails instead of the machine."""
    size = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def timed(who: str, strategy: str, folder: Path, k: int, cap: float, gigabytes: float) -> dict[str, Any]:
    """The worker's JSON, or {"failed": why}."""
    if who in ("ours", "sequential"):
        command = [sys.executable, "-m", "benchmarks.acquisition_worker", who, strategy]
    else:
        command = [str(PEERS / "bin/python"), str(ROOT / "benchmarks/peers_worker.py"), who, strategy]
    try:
        done = subprocess.run(
            [*command, str(folder), str(k)],
            check=False,
            capture_output=True,
            text=True,
            timeout=cap,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            preexec_fn=lambda: limited(gigabytes),
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"over {cap:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        memory = next((line for line in lines if "MemoryError" in line or "allocate" in line), None)
        return {"failed": f"over {gigabytes:.0f} GiB" if memory else lines[-1][:120]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def cell(found: dict[str, Any]) -> str:
    """Wall, CPU and memory in words."""
    if "failed" in found:
        return str(found["failed"])
    return f"{found['wall_s']:.2f} s / {found['cpu_s']:.2f} / {found['peak_mb']:,} MB"


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line a strategy and library, one column a case, as Markdown on stderr."""
    cases = list(dict.fromkeys((row["n"], row["k"]) for row in rows))
    print(
        "\n| strategy | by | " + " | ".join(f"{n:,} records, {k:,} picks" for n, k in cases) + " |", file=sys.stderr
    )
    print("|---|---|" + "---|" * len(cases), file=sys.stderr)
    for strategy, who in dict.fromkeys((row["strategy"], row["by"]) for row in rows):
        found = {(r["n"], r["k"]): cell(r) for r in rows if (r["strategy"], r["by"]) == (strategy, who)}
        print(f"| {strategy} | {who} | " + " | ".join(found.get(c, "") for c in cases) + " |", file=sys.stderr)


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times as fast ours is as each rival, by wall and by CPU, where both ran."""
    by = {(r["strategy"], r["by"], r["n"], r["k"]): r for r in rows if "failed" not in r}
    out = []
    for (strategy, who, n, k), rival in by.items():
        mine = by.get((strategy, "ours", n, k))
        if who == "ours" or mine is None:
            continue
        line = {"strategy": strategy, "than": who, "n": n, "k": k}
        line |= {unit: round(rival[unit] / mine[unit], 1) for unit in ("wall_s", "cpu_s", "peak_mb")}
        floor = next((f for s, r, f in FLOORS if (s, r) == (strategy, who) and (n, k) == (50_000, 1000)), None)
        out.append(line if floor is None else {**line, "floor": floor, "reached": line["wall_s"] >= floor})
    return out


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case, strategy and library."""
    reason = install_peers()
    rows = []
    for n, k in args.cases:
        with tempfile.TemporaryDirectory() as name:
            write_case(Path(name), n, args.classes, args.width)
            for strategy in args.strategies:
                for who in FIELD[strategy]:
                    if reason and who not in ("ours", "sequential"):
                        found: dict[str, Any] = {"failed": f"not installed: {reason}"}
                    else:
                        found = timed(who, strategy, Path(name), k, args.cap, args.memory)
                    rows.append({"strategy": strategy, "by": who, "n": n, "k": k, **found})
                    print(f"{strategy:10} {who:16} n={n} k={k}: {cell(found)}", file=sys.stderr, flush=True)
    return rows


def large(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every registered strategy of ours on two modalities on disk."""
    n, k = args.large
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_large(Path(name), n, args.classes, args.width)
        for strategy in args.only or strategy_names():
            found = timed("ours", strategy, Path(name), k, args.cap, 64.0)
            rows.append({"strategy": strategy, "by": "ours", "n": n, "k": k, **found})
            print(f"{strategy:18} n={n} k={k}: {cell(found)}", file=sys.stderr, flush=True)
    return rows


def sizes(text: str) -> tuple[int, int]:
    """records:picks."""
    n, k = text.split(":")
    return int(n), int(k)


def main() -> int:
    """Command line; the status says whether the floors that were measured are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=sizes, nargs="*", default=[(10_000, 100), (50_000, 100), (50_000, 1000)])
    parser.add_argument("--strategies", nargs="*", choices=FIELD, default=list(FIELD))
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cap", type=float, default=300.0, help="seconds after which an acquisition is given up")
    parser.add_argument("--memory", type=float, default=12.0, help="GiB of address space of each")
    parser.add_argument("--large", type=sizes, help="records:picks of ours alone, vectors on disk")
    parser.add_argument("--only", nargs="*", choices=strategy_names(), help="strategies of --large; default all")
    args = parser.parse_args()
    rows = large(args) if args.large else compare(args)
    print_table(rows)
    speed = ratios(rows)
    print(json.dumps({"settings": {k: str(v) for k, v in vars(args).items()}, "rows": rows, "times_as_fast": speed}))
    missed = [line for line in speed if line.get("reached") is False]
    for line in missed:
        print(f"floor missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
