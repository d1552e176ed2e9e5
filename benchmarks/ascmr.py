"""The kernels of ASCMR and its baselines beside a plain dense reading of their formulas, and a million pairs.

    python -m benchmarks.ascmr                      # JSON on stdout, a Markdown table on stderr
    python -m benchmarks.ascmr --scale 0.5          # half the records
    python -m benchmarks.ascmr --large 1000000 --picks 1000

Each case runs both on the same seeded inputs, once for time and once under tracemalloc for the memory beside them,
and states by how much the results differ. "Dense" is the formula written down: whole tables, no chunks. --large times
the strategies on random clustered embeddings, float16 on disk, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.strategies import Pool, create_strategy
from backend.strategies.kernels.allocation import frank_wolfe, greedy_allocation, improved, objective
from backend.strategies.kernels.density import Kernel, MatchKernel, TableKernel, reference_density
from backend.strategies.kernels.gaussian_match import Gaussians, log_match_table
from backend.strategies.kernels.graph_network import CosineGraph
from backend.strategies.kernels.prediction_cover import PredictionCover

LARGE = ("cross_modal_similarity", "query_bank", "cdal", "ascmr")
WIDTH = 128
CLASSES = 24


@dataclass(frozen=True)
class Case:
    """ours and dense return the same thing, up to what ``difference`` says."""

    name: str
    size: str
    ours: Callable[[], Any]
    dense: Callable[[], Any]
    difference: Callable[[Any, Any], float]


def largest(left: Any, right: Any) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64)).max())


def unlike(left: Any, right: Any) -> float:
    """Share of picks that differ."""
    return 1.0 - len(set(np.asarray(left).tolist()) & set(np.asarray(right).tolist())) / len(left)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gaussians(n: int, width: int, seed: int = 0) -> Gaussians:
    """Clustered means and skewed variances, widened as the strategy does."""
    rng = np.random.default_rng(seed)
    means = 2.0 * rng.normal(size=(40, width))[rng.integers(0, 40, n)] + rng.normal(size=(n, width))
    spread = rng.gamma(2.0, 0.5, (n, width)) + 1e-2
    return Gaussians(means.astype(np.float32), spread.astype(np.float32)).widened(width / 4)


def dense_log_match(g: Gaussians) -> np.ndarray:
    """ln p of all pairs by one broadcast, n x n x d."""
    middle = 0.5 * (g.variance[:, None] + g.variance[None])
    apart = (g.mean[:, None] - g.mean[None]) ** 2 / middle
    logs = 0.25 * (np.log(g.variance)[:, None] + np.log(g.variance)[None]) - 0.5 * np.log(middle)
    return np.asarray((logs - 0.125 * apart).sum(axis=2))


def dense_greedy(worth: np.ndarray, table: np.ndarray, b: int, weight: float) -> np.ndarray:
    """b times the record that raises F most, every F from the table anew."""
    picks: list[int] = []
    for _ in range(b):
        inside = table[:, picks].sum(axis=1) if picks else np.zeros(len(worth))
        gains = worth / b - 2.0 * weight / (b * (b - 1)) * inside
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
    return np.array(picks)


def dense_swaps(worth: np.ndarray, kernel: Kernel, start: np.ndarray, weight: float) -> np.ndarray:
    """The first swap that raises F, F computed anew for each, until none does."""
    picks = start.copy()
    value = objective(worth, kernel, picks, weight)
    moved = True
    while moved:
        moved = False
        for place in range(len(picks)):
            values = np.full(len(worth), -np.inf)
            for other in np.setdiff1d(np.arange(len(worth)), picks):
                changed = picks.copy()
                changed[place] = other
                values[other] = objective(worth, kernel, changed, weight)
            if values.max() > value + 1e-9:
                picks[place], value, moved = int(values.argmax()), float(values.max()), True
    return picks


def dense_frank_wolfe(worth: np.ndarray, table: np.ndarray, start: np.ndarray, rounds: int) -> float:
    """Value after some rounds, with the whole table in each."""
    b = len(start)
    half = 1.0 / (b * (b - 1))
    q = np.zeros(len(worth))
    q[start] = 1.0
    for _ in range(rounds):
        slope = worth / b - 2.0 * half * (table @ q)
        vertex = np.zeros(len(worth))
        vertex[np.argsort(-slope, kind="stable")[:b]] = 1.0
        ahead = vertex - q
        curve = half * float(ahead @ table @ ahead)
        gain = float(slope @ ahead)
        q += min(1.0, gain / (2.0 * curve)) * ahead if curve > 0 else ahead
    return float(worth @ q / b - half * (q @ table @ q - b))


def dense_cdal(p: np.ndarray, anchors: np.ndarray, free: np.ndarray, k: int) -> np.ndarray:
    """k-centre with every divergence by broadcasting, n x L x C."""

    def apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        logs = np.log(left)[:, None] - np.log(right)[None]
        return np.asarray(0.5 * ((left[:, None] - right[None]) * logs).sum(axis=2))

    nearest = apart(p[free], p[anchors]).min(axis=1)
    picks = []
    for _ in range(k):
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, apart(p[free], p[free[picks[-1]]][None])[:, 0])
        nearest[picks[-1]] = -1.0
    return free[picks]


def allocation_cases(scale: float) -> list[Case]:
    """Match table, density, greedy, swaps, Frank-Wolfe."""
    sizes = {key: max(int(n * scale), 40) for key, n in {"t": 1000, "g": 3000, "s": 200, "d": 4000}.items()}
    kernels = {key: MatchKernel.of(gaussians(n, 32)) for key, n in sizes.items()}
    worth = {key: np.random.default_rng(1).random(n) for key, n in sizes.items()}
    small = TableKernel(np.exp(dense_log_match(gaussians(sizes["s"], 32))))
    start = greedy_allocation(worth["s"], small, 10, 5.0)
    references = np.sort(np.random.default_rng(2).choice(sizes["d"], min(512, sizes["d"]), replace=False))
    first = greedy_allocation(worth["g"], kernels["g"], 100, 1.0)

    def dense_table(key: str) -> np.ndarray:
        out = np.exp(log_match_table(gaussians(sizes[key], 32), gaussians(sizes[key], 32)))
        return np.asarray(out)

    return [
        Case(
            "match probability, all pairs",
            f"{sizes['t']} x {sizes['t']}, d 32",
            lambda: log_match_table(gaussians(sizes["t"], 32), gaussians(sizes["t"], 32)),
            lambda: dense_log_match(gaussians(sizes["t"], 32)),
            largest,
        ),
        Case(
            "density, 512 references",
            f"{sizes['d']}, d 32",
            lambda: reference_density(kernels["d"], np.arange(sizes["d"]), references),
            lambda: (dense_table("d").sum(axis=1) - 1.0) / (sizes["d"] - 1),
            largest,
        ),
        Case(
            "greedy",
            f"{sizes['g']}, 100 picks, d 32",
            lambda: greedy_allocation(worth["g"], kernels["g"], 100, 1.0).picks,
            lambda: dense_greedy(worth["g"], dense_table("g"), 100, 1.0),
            unlike,
        ),
        Case(
            "swaps",
            f"{sizes['s']}, 10 picks",
            lambda: improved(worth["s"], small, start, 5.0).picks,
            lambda: dense_swaps(worth["s"], small, start.picks, 5.0),
            unlike,
        ),
        Case(
            "Frank-Wolfe, 20 rounds",
            f"{sizes['g']}, 100 picks, d 32",
            lambda: frank_wolfe(worth["g"], kernels["g"], 100, 1.0, start=first, rounds=20, tolerance=0.0).value,
            lambda: dense_frank_wolfe(worth["g"], dense_table("g"), first.picks, 20),
            largest,
        ),
    ]


def baseline_cases(scale: float) -> list[Case]:
    """Own cosine, sampled match, query bank, CDAL, the graph of CoreGCN."""
    rng = np.random.default_rng(0)
    n, m = max(int(8000 * scale), 200), max(int(3000 * scale), 200)
    image, text = (unit(rng.normal(size=(n, WIDTH))) for _ in range(2))
    labelled = np.arange(n) < min(500, n // 4)
    pool = Pool({"image": image, "text": text}, labelled, np.where(labelled, 0, -1), 2)
    p = rng.dirichlet(np.full(CLASSES, 0.3), n).clip(1e-6, 1 - 1e-6)
    anchors, free = np.flatnonzero(labelled), np.flatnonzero(~labelled)
    hidden = rng.normal(size=(WIDTH, 16)).astype(np.float32)
    nodes = unit(np.abs(image[:m]))

    def picks(name: str) -> Callable[[], np.ndarray]:
        return lambda: create_strategy(name).select(pool, 50, np.random.default_rng(0)).indices

    def bank() -> np.ndarray:
        table = text @ image.T
        score = 2.0 * np.diag(table).astype(np.float64)
        for side in (table, table.T):
            score -= np.log(np.exp(20.0 * side[labelled].astype(np.float64)).mean(axis=0)) / 20.0
        return free[np.argsort(score[free], kind="stable")[:50]]

    def adjacency() -> np.ndarray:
        cosines = nodes @ nodes.T - np.eye(len(nodes), dtype=np.float32)
        return np.asarray((cosines @ np.diag(1.0 / cosines.sum(axis=0)) + np.eye(len(nodes))) @ (nodes @ hidden))

    return [
        Case(
            "own cosine",
            f"{n}, D {WIDTH}, 50 picks",
            picks("cross_modal_similarity"),
            lambda: free[np.argsort(np.diag(image @ text.T)[free], kind="stable")[:50]],
            unlike,
        ),
        Case("query bank", f"{n}, {len(anchors)} in the bank, D {WIDTH}", picks("query_bank"), bank, unlike),
        Case(
            "CDAL",
            f"{n}, {len(anchors)} labelled, 100 picks, C {CLASSES}",
            lambda: PredictionCover.of(p, multi_label=False).farthest_first(100, anchors, free).picks,
            lambda: dense_cdal(p, anchors, free, 100),
            unlike,
        ),
        Case(
            "CoreGCN's graph, one layer",
            f"{m}, D {WIDTH} to 16",
            lambda: CosineGraph.of(nodes).times(nodes @ hidden),
            adjacency,
            largest,
        ),
    ]


def timed(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """(result, wall and CPU seconds, MiB at the peak beside what was there)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return result, {"wall_s": round(wall, 4), "cpu_s": round(cpu, 4), "mib": round(peak, 1)}


def compare(scale: float) -> list[dict[str, Any]]:
    """One row a case."""
    rows = []
    for case in [*allocation_cases(scale), *baseline_cases(scale)]:
        ours, cost = timed(case.ours)
        dense, plain = timed(case.dense)
        rows.append(
            {
                "kernel": case.name,
                "size": case.size,
                "ours": cost,
                "dense": plain,
                "times_as_fast": round(plain["cpu_s"] / max(cost["cpu_s"], 1e-9), 1),
                "memory_saved": round(plain["mib"] / max(cost["mib"], 1e-9), 1),
                "difference": case.difference(ours, dense),
            }
        )
    return rows


def write_pairs(folder: Path, n: int) -> None:
    """Embeddings of pairs in 200 clusters, (n, 128) float16, made in parts; 1,000 labelled; class probabilities."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, WIDTH)).astype(np.float32)
    maps = {
        m: np.lib.format.open_memmap(folder / f"{m}.npy", "w+", np.float16, (n, WIDTH)) for m in ("image", "text")
    }
    p = np.lib.format.open_memmap(folder / "p.npy", "w+", np.float32, (n, CLASSES))
    rule = rng.normal(size=(WIDTH, CLASSES)).astype(np.float32)
    for begin in range(0, n, 50_000):
        part = slice(begin, min(begin + 50_000, n))
        size = part.stop - begin
        meaning = centres[rng.integers(0, 200, size)] + 0.7 * rng.standard_normal((size, WIDTH), np.float32)
        noise = np.where(rng.random(size) < 0.25, 1.5, 0.4).astype(np.float32)[:, None]
        for matrix in maps.values():
            matrix[part] = unit(meaning + noise * rng.standard_normal((size, WIDTH), np.float32))
        p[part] = 1.0 / (1.0 + np.exp(-6.0 * maps["image"][part].astype(np.float32) @ rule))
    for array in (*maps.values(), p):
        array.flush()


def large_worker(name: str, folder: Path, picks: int) -> dict[str, Any]:
    """One selection from what ``write_pairs`` wrote."""
    features = {m: np.load(folder / f"{m}.npy", mmap_mode="r") for m in ("image", "text")}
    p = np.load(folder / "p.npy", mmap_mode="r")
    n = len(p)
    labelled = np.zeros(n, dtype=bool)
    labelled[np.random.default_rng(1).choice(n, 1000, replace=False)] = True
    labels = np.where(labelled[:, None], p >= 0.5, -1).astype(np.int8)
    pool = Pool(features, labelled, labels, CLASSES, True, p)
    wall, cpu = time.perf_counter(), time.process_time()
    parts = create_strategy(name).select(pool, picks, np.random.default_rng(0)).parts
    row = {
        "strategy": name,
        "records": n,
        "picks": picks,
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        # Pages of the files that were read are counted too.
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    told = ("batch_density", "top_density", "random_density", "gap", "left_out_gain", "temper")
    return row | {key: float(parts[key][0]) for key in told if key in parts}


def large(n: int, picks: int, strategies: list[str]) -> list[dict[str, Any]]:
    """One row a strategy, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_pairs(Path(name), n)
        for strategy in strategies:
            command = [sys.executable, "-m", "benchmarks.ascmr", "--worker", strategy, name, "--picks", str(picks)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| kernel | size | ours | dense | times as fast (CPU) | difference |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[side]['cpu_s']:.3f} s, {row[side]['mib']:.0f} MiB" for side in ("ours", "dense")]
        lines.append(
            f"| {row['kernel']} | {row['size']} | {cells[0]} | {cells[1]} | {row['times_as_fast']:.1f} | "
            f"{row['difference']:.1e} |"
        )
    return "\n".join(lines)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--strategies", nargs="+", default=list(LARGE))
    parser.add_argument("--worker", nargs=2, metavar=("STRATEGY", "FOLDER"))
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(large_worker(given.worker[0], Path(given.worker[1]), given.picks)))
        return 0
    if given.large:
        print(json.dumps({"large": large(given.large, given.picks, given.strategies)}, indent=1))
        return 0
    rows = compare(given.scale)
    print(json.dumps({"scale": given.scale, "kernels": rows}, indent=1))
    print(table(rows), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
