"""What Label Studio does with a published queue on SQLite and on PostgreSQL: order, several annotators, seconds.

    python -m benchmarks.label_studio_databases --tasks 5000

Starts a real Label Studio on each database and asks it the same: where predictions without a score and tasks
without a prediction come, which tasks annotators get who label all at once, and how long the calls of a round take.
Prints JSON and tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import requests

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.project_setup import SAMPLING
from backend.labelstudio.queue_tab import add_queue_tab
from tests import team_servers
from tests.live.conftest import CONFIG, fresh_server

DATABASES = ("sqlite", "postgresql")
ANSWER: list[dict[str, Any]] = [
    {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
]


def rows(ranked: list[int], version: str) -> list[dict[str, Any]]:
    """The predictions that publish this order."""
    return [
        {"task": task, "result": [], "score": rank / len(ranked), "model_version": version}
        for rank, task in enumerate(ranked)
    ]


def project_with(client: LabelStudio, title: str, count: int, seed: int) -> tuple[int, list[int]]:
    """A project of this many tasks, served by score; its task ids in random order."""
    project = client.create_project(title, CONFIG, sampling=SAMPLING)
    data = [{"image": f"/data/{n}.png", "text": f"text number {n}"} for n in range(count)]
    ids = client.import_tasks(project.id, data)
    Random(seed).shuffle(ids)
    return project.id, ids


def order(client: LabelStudio) -> dict[str, Any]:
    """Where rows without a score and tasks without a row come, in the label stream and in the Queue tab."""
    project, ids = project_with(client, "Order", 30, seed=1)
    published, unscored = ids[:8], ids[8:12]
    client.import_predictions(project, rows(published, "v1-auto"))
    others = [{"task": task, "result": [], "model_version": "v1-auto"} for task in unscored]
    client.http.request("POST", f"/api/projects/{project}/import/predictions", body=others)
    client.set_model_version(project, "v1-auto")
    add_queue_tab(client, project)
    [tab] = [view for view in client.views(project) if view["data"]["title"] == "Queue"]
    shown = client.http.request("GET", "/api/tasks/", params={"view": tab["id"], "page_size": 100})
    listed = [task["id"] for task in shown["tasks"]]
    served = []
    for _ in range(16):
        task = client.next_task(project)
        if task is None:
            break
        served.append(task.id)
        client.create_annotation(task.id, ANSWER)
    first = served.index(published[0])
    return {
        "queue in its order": [task for task in served if task in published] == published,
        "rows without a score come": "first" if first >= len(unscored) else "last",
        "tasks without a row come": "last" if set(served[:12]) == {*published, *unscored} else "earlier",
        "tab lists the queue": listed == published,
    }


def crowd(server: LocalLabelStudio, people: list[Account], answers: int, seed: int) -> dict[str, Any]:
    """Annotators who answer without a pause, all at once: what they got, what failed."""
    client = server.client()
    project, ids = project_with(client, f"Crowd of {len(people)}", 2 * len(people) * answers, seed)
    queue = ids[: int(1.25 * len(people) * answers)]
    client.import_predictions(project, rows(queue, "v1-auto"))
    client.set_model_version(project, "v1-auto")
    rank = {task: n for n, task in enumerate(queue)}
    together = threading.Barrier(len(people))
    statuses: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {"next": [], "submit": []}

    def work(account: Account) -> list[int]:
        web = requests.Session()
        web.trust_env = False
        web.headers["Authorization"] = f"Token {account.token}"
        got: list[int] = []
        together.wait()
        while len(got) < answers:
            task = timed("next", lambda: web.get(f"{server.url}/api/projects/{project}/next", timeout=300))
            if task is None:
                continue
            got.append(int(task["id"]))
            while timed("submit", partial(submit, web, got[-1])) is None:
                pass
        return got

    def submit(web: requests.Session, task: int) -> requests.Response:
        return web.post(f"{server.url}/api/tasks/{task}/annotations/", json={"result": ANSWER}, timeout=300)

    def timed(what: str, call: Callable[[], requests.Response]) -> dict[str, Any] | None:
        began = time.monotonic()
        answer = call()
        seconds[what].append(time.monotonic() - began)
        if answer.ok:
            return dict(answer.json())
        statuses[f"{what} {answer.status_code}"] += 1
        return None

    with ThreadPoolExecutor(len(people)) as pool:
        taken = [task for tasks in pool.map(work, people) for task in tasks]
    return {
        "annotators": len(people),
        "answers": len(taken),
        "given to two": len(taken) - len(set(taken)),
        "from outside the queue": sum(task not in rank for task in taken),
        "deepest place": max(rank.get(task, -1) for task in taken),
        "failures": dict(statuses),
        "next_median": round(statistics.median(seconds["next"]), 3),
        "next_worst": round(max(seconds["next"]), 2),
        "submit_median": round(statistics.median(seconds["submit"]), 3),
        "submit_worst": round(max(seconds["submit"]), 2),
    }


def calls(client: LabelStudio, tasks: int) -> dict[str, Any]:
    """Seconds of what a round asks of Label Studio, and what an annotator waits meanwhile."""
    took: dict[str, Any] = {}

    @contextlib.contextmanager
    def clock(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        took[name] = round(time.monotonic() - began, 2)

    with clock(f"import {tasks} tasks"):
        project, ids = project_with(client, f"{tasks} tasks", tasks, seed=3)
    for count in (200, 1000):
        version = f"v{count}-auto"
        with clock(f"import {count} predictions"):
            client.import_predictions(project, rows(ids[:count], version))
        with clock(f"switch to {count}"):
            client.set_model_version(project, version)
        with clock(f"next of {count}"):
            client.next_task(project)
    client.import_predictions(project, rows(ids[:200], "v3-auto"))
    client.set_model_version(project, "v3-auto")
    for count in (200, 1000):
        waits: list[float] = []
        done = threading.Event()

        def ask(waits: list[float] = waits, done: threading.Event = done) -> None:
            while not done.is_set():
                began = time.monotonic()
                client.next_task(project)
                waits.append(time.monotonic() - began)

        annotator = threading.Thread(target=ask)
        annotator.start()
        with clock(f"delete a version of {count}"):
            client.delete_model_version(project, f"v{count}-auto")
        done.set()
        annotator.join()
        took[f"longest next while {count} are deleted"] = round(max(waits), 2)
    return took


def measure(database: str, people: list[int], answers: int, tasks: int) -> dict[str, Any]:
    """All questions to one Label Studio."""
    with (
        tempfile.TemporaryDirectory() as name,
        fresh_server(Path(name), on_postgresql=database == "postgresql") as server,
    ):
        accounts = [server.add_annotator(f"annotator{n}@localhost.local") for n in range(max(people))]
        return {
            "database": database,
            "order": order(server.client()),
            "crowd": [crowd(server, accounts[:n], answers, seed=n) for n in people],
            "calls": calls(server.client(), tasks),
        }


def print_tables(results: list[dict[str, Any]]) -> None:
    """What docs/label-studio.md shows."""
    print(f"\n| | {' | '.join(r['database'] for r in results)} |\n|---|{'---|' * len(results)}")
    for part in ("order", "calls"):
        for name in results[0][part]:
            print(f"| {name} | {' | '.join(str(r[part][name]) for r in results)} |")
    print("\n| database | annotators | answers | given to two | outside the queue | failures | next | submit |")
    print("|---|---|---|---|---|---|---|---|")
    for result in results:
        for c in result["crowd"]:
            failures = ", ".join(f"{n} x {what}" for what, n in c["failures"].items()) or "none"
            print(
                f"| {result['database']} | {c['annotators']} | {c['answers']} | {c['given to two']}"
                f" | {c['from outside the queue']} | {failures} | {c['next_median']} s ({c['next_worst']} s)"
                f" | {c['submit_median']} s ({c['submit_worst']} s) |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--annotators", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--answers", type=int, default=25, help="by each annotator")
    parser.add_argument("--tasks", type=int, default=5000)
    given = parser.parse_args()
    try:
        results = [measure(name, given.annotators, given.answers, given.tasks) for name in given.databases]
    finally:
        team_servers.close_shared()
    print(json.dumps(results, indent=2))
    print_tables(results)


if __name__ == "__main__":
    main()
