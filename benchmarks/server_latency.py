"""How fast /predict and the webhook answer under gunicorn, with everything a real project has but Label Studio.

    python -m benchmarks.server_latency --tasks 50000

Prints JSON and a table: milliseconds of a whole request on loopback, and what a burst of events leaves behind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from backend.rounds.fitting import fit_head, load_arrays
from backend.rounds.services import Services, schema_of
from backend.store import events, notes, projects, rounds, tasks
from benchmarks.cheap_encoder import CLASSES
from benchmarks.loop_latency import CONFIG, LABELS
from tests.live.backend_process import BackendProcess

PROJECT = 7


def fill(services: Services, count: int) -> None:
    """A project of `count` embedded tasks, a hundred of them labelled, with a fitted head in force."""
    store, encoder = services.store, services.encoder
    projects.remember(store, PROJECT, state="attached", label_config=CONFIG)
    tasks.remember(
        store, PROJECT, [tasks.Inputs(n, "", f"class {n % CLASSES} item {n}") for n in range(1, count + 1)]
    )
    vectors = services.vectors()
    assert vectors is not None
    while batch := tasks.to_embed(store, PROJECT, encoder.id, 5000):
        names = [t.text for t in batch]
        vectors.append("text", names, encoder.encode_texts(names))
        done = {"image": "", "embedded_with": encoder.id}
        tasks.embedded(
            store, PROJECT, [{**done, "task_id": t.task_id, "text": t.text, "text_hash": t.text} for t in batch]
        )
    tasks.label(store, PROJECT, [tasks.Labelling(n, "label", [LABELS[n % CLASSES]]) for n in range(1, 101)])
    schema = schema_of(projects.get(store, PROJECT))
    head = fit_head(load_arrays(services, PROJECT, schema), schema, seed=0)
    assert head is not None
    opened = rounds.start(
        store, PROJECT, number=1, version="v1-auto", trigger="", strategy="auto", options={}, seed=0
    )
    path = rounds.save_head(store, opened, *head.state())
    rounds.reach(store, opened.id, "saved", head=str(path.relative_to(store.data_dir)))
    rounds.put_in_force(store, opened)


def timed(count: int, call: Any) -> dict[str, float]:
    """Median and 95th percentile of `count` calls, in milliseconds."""
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        call(number).raise_for_status()
        seconds.append(time.perf_counter() - began)
    return {
        "median_ms": round(1000 * statistics.median(seconds), 2),
        "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 2),
    }


def measure(count: int, burst: int) -> dict[str, Any]:
    """All figures of one web process pool."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"MMAL_ENCODER": "import:benchmarks.cheap_encoder:make", "MMAL_WEB_WORKERS": "2"}
        backend = BackendProcess(Path(folder) / "backend", "http://127.0.0.1:9", "none", environment)
        services = backend.services()
        fill(services, count)
        backend.start("web")
        session = requests.Session()

        def predict(size: int) -> Any:
            asked = [{"id": 1 + n, "data": {"title": f"class {n % CLASSES} item {n}"}} for n in range(size)]
            body: Any = {"tasks": asked, "project": f"{PROJECT}.1", "label_config": CONFIG}
            return lambda number: session.post(f"{backend.url}/predict", json=body, timeout=100)

        header = {"Authorization": f"Bearer {notes.events_secret(services.store)}"}
        event: Any = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": PROJECT},
            "task": {"id": 1},
            "pad": "x" * 3000,
        }

        def send(number: int) -> Any:
            return session.post(f"{backend.url}/events", json=event, headers=header, timeout=30)

        try:
            results: dict[str, Any] = {"tasks": count}
            results["predict_100"] = timed(40, predict(100))
            results["predict_5000"] = timed(5, predict(min(5000, count)))
            results["webhook"] = timed(300, send)
            before = events.waiting(services.store)
            with ThreadPoolExecutor(8) as pool:
                began = time.perf_counter()
                refused = sum(not answer.ok for answer in pool.map(send, range(burst)))
                seconds = time.perf_counter() - began
            results["burst"] = {
                "sent": burst,
                "refused": refused,
                "noted": events.waiting(services.store) - before,
                "per_second": round(burst / seconds),
            }
            return results
        finally:
            backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--burst", type=int, default=10_000)
    given = parser.parse_args()
    r = measure(given.tasks, given.burst)
    print(json.dumps(r, indent=2))
    print("\n| request | median | 95% |\n|---|---|---|")
    for name in ("predict_100", "predict_5000", "webhook"):
        print(f"| {name} | {r[name]['median_ms']} ms | {r[name]['p95_ms']} ms |")
    b = r["burst"]
    print(f"\nburst: {b['sent']} events sent by 8 threads, {b['noted']} noted, {b['refused']} refused")


if __name__ == "__main__":
    main()
