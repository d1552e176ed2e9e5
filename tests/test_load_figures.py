"""The figures of `benchmarks.faults` say what happened."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.observer import LockWatch, group_rss, longest_gap, slope
from benchmarks.faults.trial import server_errors, tracebacks
from tests.live.backend_process import wait_for


def test_a_gap_lasts_from_the_first_look_without_a_queue_to_the_next_with_one() -> None:
    looks = [(0.0, True), (1.0, False), (2.0, True), (3.0, False), (4.0, False), (6.5, True), (7.0, True)]
    assert longest_gap(looks) == 3.5
    assert longest_gap(looks[:5]) == 1.0
    assert longest_gap([(0.0, True), (9.0, True)]) == 0.0
    assert longest_gap([]) == 0.0


def test_memory_that_grows_is_told_from_memory_that_wavers() -> None:
    seconds = np.arange(0, 3600.0)
    noise = np.random.default_rng(0).normal(0, 2, len(seconds))
    growing = slope(list(zip(seconds, 200 + seconds / 3600 * 30 + noise, strict=True)))
    assert growing["mib_per_hour"] == pytest.approx(30, abs=3 * growing["standard_error"])
    assert growing["mib_per_hour"] > 10 * growing["standard_error"]
    flat = slope(list(zip(seconds, 200 + noise, strict=True)))
    assert abs(flat["mib_per_hour"]) < 4 * flat["standard_error"]


def test_what_a_process_holds_between_its_rounds_is_told_from_what_they_take() -> None:
    seconds = np.arange(0, 3600.0)
    in_rounds = np.where(seconds % 30 < seconds / 200, 100.0, 0.0)
    found = slope(list(zip(seconds, 200 + in_rounds, strict=True)))
    assert found["by_minute"][-1] > found["by_minute"][0] + 40
    assert set(found["lowest_by_minute"]) == {200.0}


def test_memory_of_a_process_group_is_read() -> None:
    assert group_rss(os.getpgrp()) > 10


def test_the_watch_sees_for_how_long_another_process_holds_the_lock_to_write(tmp_path: Path) -> None:
    file = tmp_path / "database.sqlite3"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (n)")
    connection.close()
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        "print('held', flush=True); sys.stdin.read(); c.execute('COMMIT')"
    )
    command = [sys.executable, "-c", script, str(file)]
    watch = LockWatch(file, lambda: "a write of ours")
    watch.start()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        wait_for("the watch to see it", lambda: watch.held_since is not None)
        begun = watch.held_since
        wait_for("a notable while", lambda: watch.clock() - begun > 0.2)
        holder.stdin.close()
        holder.wait()
    wait_for("the watch to see the end", lambda: watch.held)
    watch.stop()
    [longest] = watch.figures()["longest"]
    assert longest["during"] == "a write of ours"
    assert longest["seconds"] >= 0.2


def test_answers_of_label_studio_with_an_error_are_counted_by_call(tmp_path: Path) -> None:
    log = tmp_path / "label-studio.log"
    log.write_text(
        '[1] [ERROR] "POST /api/tasks/17/annotations/ HTTP/1.1" 500 9\n'
        '[2] [INFO] "GET /api/projects/1/next HTTP/1.1" 200 512\n'
        '[3] [ERROR] "POST /api/tasks/18/annotations/?a=1 HTTP/1.1" 500 9\n'
    )
    assert server_errors(log) == {"POST api/tasks/N/annotations 500": 2}


def test_exceptions_that_are_told_by_a_traceback_are_counted_by_their_words(tmp_path: Path) -> None:
    log = tmp_path / "backend.log"
    one = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: no\n'
    log.write_text(f"12:00 INFO fine\n{one}12:01 ERROR in words\n{one}{one.replace('no', 'yes')}")
    assert tracebacks(log) == {"ValueError: no": 2, "ValueError: yes": 1}
