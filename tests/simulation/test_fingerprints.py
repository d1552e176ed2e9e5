"""Finished replays are found by the fingerprint of their set: it says what changed, and nothing else changes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.simulation.labelled_set import LabelledSet
from backend.simulation.replay_set import ReplaySet
from backend.simulation.retrieval.retrieval_sets import RetrievalSet

FEATURES = {m: (np.arange(24, dtype=np.float32) + k).reshape(8, 3) for k, m in enumerate(("image", "text"))}
GROUPS = {"random": np.arange(8), "grouped": np.arange(8) // 2}
LABELLED = LabelledSet("x", FEATURES, np.arange(8) % 2, ["a", "b"], GROUPS, batch_size=5, budget=20)
DRAWN = RetrievalSet("x", FEATURES, GROUPS["grouped"], np.eye(8, 2, dtype=np.int8), ["a", "b"], pool=4, held_out=2)


@pytest.mark.parametrize(("data", "fingerprint"), [(LABELLED, "88ad46fb02df427f"), (DRAWN, "43197c8697cfb58b")])
def test_the_fingerprint_is_that_of_earlier_versions(data: ReplaySet, fingerprint: str) -> None:
    """If this fails, every finished replay of the benchmarks has to be run again."""
    assert data.fingerprint == fingerprint
    assert replace(data, name="y", batch_size=3, notes=("told",)).fingerprint == fingerprint


@pytest.mark.parametrize("data", [LABELLED, DRAWN])
def test_other_vectors_labels_groups_or_sizes_are_another_fingerprint(data: LabelledSet | RetrievalSet) -> None:
    changes = [
        {"features": {**FEATURES, "text": FEATURES["text"] + 1}},
        {"labels": data.labels[::-1]},
        {"groups": {**GROUPS, "grouped": np.zeros(8, int)} if data is LABELLED else np.zeros(8, int)},
    ]
    if data is DRAWN:
        changes += [{"pool": 5}, {"held_out": 1}]
    found = {replace(data, **change).fingerprint for change in changes}
    assert len(found - {data.fingerprint}) == len(changes)
