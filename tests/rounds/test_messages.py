"""What lies in the job queue is data: it names a job and runs nothing by being read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from backend.errors import JobMessageInvalid
from backend.rounds.messages import JsonSerializer
from backend.rounds.services import Services
from backend.rounds.worker import Worker
from backend.settings import Settings


class Trap:
    """A pickle that leaves a folder behind when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(Services(Settings(data_dir=tmp_path)))


def test_a_job_comes_out_of_the_queue_as_it_went_in(worker: Worker) -> None:
    worker.jobs["round"](7)
    stored = worker.huey.storage.enqueued_items()
    assert stored[0].startswith(b'{"id": ')
    assert worker._asked_for() == {("round", 7)}
    task = worker.huey.dequeue()
    assert (task.name, task.args, task.kwargs) == ("round", (7,), {})
    assert worker.huey.dequeue() is None


@pytest.mark.parametrize(
    "junk", [b"", b"{", b"[]", b"3", b"{}", b'{"args": [1], "kwargs": {}, "x": 1}', b"[" * 100_000]
)
def test_what_is_no_job_is_named_so(junk: bytes) -> None:
    with pytest.raises(JobMessageInvalid):
        JsonSerializer().deserialize(junk)
    with pytest.raises(JobMessageInvalid):
        JsonSerializer().serialize({"result": 1})


def test_a_pickle_in_the_queue_is_not_read_and_stops_nothing(worker: Worker, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    worker.huey.storage.enqueue(pickle.dumps(Trap(trap)))
    worker.jobs["sync"](3)
    assert worker._asked_for() == {("sync", 3)}
    with pytest.raises(JobMessageInvalid):
        worker.huey.dequeue()
    assert worker.huey.dequeue().name == "sync"
    assert not trap.exists()
