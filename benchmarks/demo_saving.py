"""What `make demo ANNOTATE=120` saves, over several seeds: the real loop, real Label Studio, real vectors.

    python -m benchmarks.demo_saving --seeds 5

Each seed is a project of its own in one Label Studio with one backend; the project's number seeds its rounds. The
scripted annotator labels in the order Label Studio serves. Prints JSON and a table: labels saved against random
(share of the labels not needed to reach random's final accuracy), and the mean difference over the curve.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from backend.labelstudio.task_templates import TaskTemplate, create_project
from backend.rounds.connecting import attach_project, detach_project, set_options
from backend.rounds.creating import find_template
from backend.simulation.holdout import Holdout, labels_saved
from backend.simulation.pairs import embed_dataset, load_dataset
from scripts import demo
from scripts.scripted_annotator import EVERY, REPLAYS, SEED, label
from tests.live.backend_process import BackendProcess
from tests.live.conftest import fresh_server


def measure(seeds: int, count: int, options: dict[str, Any]) -> dict[str, Any]:
    """Curves of `seeds` runs and of random replays."""
    pairs = load_dataset(demo.PAIRS)
    assert pairs.holdout is not None
    template = TaskTemplate.load(find_template(demo.TEMPLATE))
    with tempfile.TemporaryDirectory() as name, fresh_server(Path(name), document_root=demo.PAIRS.parent) as server:
        environment = {"MMAL_ENCODER": "packaged", "MMAL_LOCAL_FILES_ROOT": str(demo.PAIRS.parent)}
        backend = BackendProcess(Path(name) / "backend", server.url, server.admin.token, environment)
        services, client = backend.services(), server.client()
        with backend:
            orders = []
            for seed in range(seeds):
                made = create_project(client, template, f"seed {seed}", list(pairs.classes), demo.tasks_of(pairs))
                client.add_local_files(made.project.id, str(demo.PAIRS), "pictures")
                attach_project(services, made.project.id)
                set_options(services, made.project.id, options, why="the benchmark")
                demo.wait_for_queue(services, made.project.id)
                orders.append(label(services, client, made.project.id, pairs, count))
                detach_project(services, made.project.id)
        features = embed_dataset(pairs, "packaged", Path(name) / "vectors")
    holdout = Holdout(features, pairs.labels, pairs.holdout, len(pairs.classes))
    sizes = [*range(EVERY, count, EVERY), count]
    random = holdout.random_replays(sizes, REPLAYS, SEED)
    curves = np.array([[holdout.accuracy(order[:size]) for size in sizes] for order in orders])
    goal = float(random.mean(0)[-1])
    return {
        "labels": sizes,
        "options": options,
        "random_mean": random.mean(0).round(4).tolist(),
        "curves": curves.round(4).tolist(),
        "saved": [round(labels_saved(sizes, curve, goal), 4) for curve in curves],
        "area_difference": [round(float(a), 4) for a in (curves - random.mean(0)).mean(1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--labels", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=demo.OPTIONS["batch_size"])
    given = parser.parse_args()
    r = measure(given.seeds, given.labels, {"batch_size": given.batch_size})
    print(json.dumps(r, indent=2))
    print("\n| seed | labels saved | mean difference over the curve |\n|---|---|---|")
    for seed, (saved, area) in enumerate(zip(r["saved"], r["area_difference"], strict=True)):
        print(f"| {seed} | {saved:.0%} | {100 * area:+.1f} points |")
    print(f"| mean | {np.mean(r['saved']):.1%} | {100 * np.mean(r['area_difference']):+.1f} points |")


if __name__ == "__main__":
    main()
