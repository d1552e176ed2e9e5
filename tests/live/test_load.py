"""The harness of `benchmarks.faults` at its smallest, so that it cannot rot: every label that is sent is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import label_studio_ill, worker_kills

pytestmark = pytest.mark.live


def check(figures: dict[str, Any]) -> None:
    assert figures["labels_sent"] > 0
    assert figures["labels_sent"] == figures["labels_learnt"] == figures["labels_of_last_round"]
    assert 0 < figures["confirmed_to_annotators"] <= figures["labels_sent"]
    assert (figures["lost"], figures["invented"], figures["wrong"]) == (0, 0, 0)
    assert figures["queue_as_published"]
    assert figures["versions_left_over"] == 0
    assert figures["tracebacks"] == {}
    assert figures["rounds_completed"] > 0


def test_labels_given_while_the_worker_is_killed_are_all_learnt(tmp_path: Path) -> None:
    figures = worker_kills.kills(tmp_path, tasks=80, count=2)
    check(figures)
    assert sum(figures["killed_at"].values()) == 2


def test_labels_given_while_label_studio_fails_are_all_learnt(tmp_path: Path) -> None:
    figures = label_studio_ill.scenario("errors")(tmp_path, tasks=80, minutes=0.4)
    check(figures)
    assert figures["calls_harmed"]["errors"] > 0
    assert figures["error_gone_at_the_end"]
