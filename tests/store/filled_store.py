"""A store with something in every table, and all that it holds, for comparing two stores."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select

from backend.store import (
    Store,
    backup,
    catalogue,
    control_sample,
    counters,
    events,
    faults,
    notes,
    pair_queries,
    projects,
    rounds,
    tasks,
)
from backend.store.tables import Base
from backend.store.vectors import VectorStore

DIMS = {"image": 4, "text": 8}


def content(number: int) -> np.ndarray:
    return np.full((1, DIMS["text"]), number % 2000, np.float32)


def fill(store: Store) -> None:
    """A row in every table, vectors and a head."""
    projects.remember(store, 1, title="Zwölf “Adverts”", state="attached", options={"strategy": "auto"})
    tasks.remember(store, 1, [tasks.Inputs(n, f"picture {n}", f"text {n}\n") for n in range(1, 51)])
    answer = {"annotation_id": 5, "task_id": 1, "choices": ["a", "ü"], "has_choices": True}
    tasks.label(store, 1, [tasks.Labelling(1, "label", ["a", "ü"], [answer])])
    vectors = VectorStore(store, "e", DIMS)
    for number in range(20):
        vectors.append("text", [f"text {number}"], content(number))
    opened = rounds.start(store, 1, number=1, version="v1-auto", trigger="x", strategy="auto", options={}, seed=7)
    path = rounds.save_head(store, opened, {"w": np.eye(3)}, {"kind": "test"})
    rounds.reach(store, opened.id, "saved", head=str(path.relative_to(store.data_dir)))
    entry = {"project_id": 1, "task_id": 2, "role": "batch", "reason": "margin", "figures": {"p": 0.25}}
    rounds.set_queue(store, opened.id, [entry])
    control_sample.note(store, opened, {1: ["ü"]})
    rounds.put_in_force(store, opened)
    catalogue.add(store, 2, [catalogue.NewItem("a", "image", "picture"), catalogue.NewItem("b", "text", "“words”")])
    query = {"key": "q1", "round_number": 1, "modality": "image", "item": 1, "candidates": [2], "similarities": [0.1]}
    pair_queries.choose(store, 2, [query])
    events.add(store, 1, "ANNOTATION_CREATED")
    counters.add(store, {("embedded", ("1",)): 0.1})
    notes.write(store, "n", {"nested": [{"a": None}, True, 1e-300]})


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Everything the database holds."""
    with store.reading() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
            if table.name not in backup.LEFT_OUT
        }


def files(store: Store) -> dict[str, bytes]:
    """Vectors and heads, by their names in the folder."""
    return {name: (store.data_dir / name).read_bytes() for name in faults.file_names(store.data_dir)}
