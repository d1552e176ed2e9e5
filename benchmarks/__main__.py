"""`make bench`: every benchmark at its smallest settings, one after the other."""

from __future__ import annotations

import subprocess
import sys

# Module and arguments; each takes minutes at most on two cores.
BENCHMARKS = (
    ("benchmarks.server_latency", ()),
    ("benchmarks.encoder_speed", ("--items", "64", "--repeats", "1", "--compared", "16")),
    ("benchmarks.loop_latency", ("--tasks", "1000")),
    ("benchmarks.catalogue_loop", ("--items", "2000")),
    ("benchmarks.faults", ("errors", "--minutes", "1", "--tasks", "300")),
    ("backend.cli", ("simulate", "--dataset", "demo", "--seeds", "2", "--out", ".cache/simulation")),
    ("benchmarks.auto_at_scale", ()),
    ("benchmarks.acquisition", ("--cases", "10000:100")),
    ("benchmarks.pairing", ("--items", "50000")),
    ("benchmarks.ascmr", ("--scale", "0.3")),
    ("benchmarks.retrieval_map", ("--pairs", "2000")),
    ("benchmarks.alignment", ()),
    ("benchmarks.annotators", ("tux12", "--seeds", "2", "--out", ".cache/annotators.json")),
    ("benchmarks.control_sample", ("tux12", "--seeds", "2", "--batches", "40")),
    ("benchmarks.warm_start", ()),
    ("benchmarks.demo_saving", ("--seeds", "1")),
)


def main() -> int:
    """Run all; the status says whether every one ran through."""
    failed = []
    for module, arguments in BENCHMARKS:
        print(f"\n== python -m {module} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode:
            failed.append(module)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
