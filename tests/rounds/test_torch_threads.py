"""MMAL_TORCH_THREADS holds in every thread of a process, for the worker runs its jobs in several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, threading
from pathlib import Path
from backend.rounds.services import Services
from backend.settings import Settings
Services(Settings(data_dir=Path(sys.argv[1]), torch_threads=1))
import torch
counts = []
threads = [threading.Thread(target=lambda: counts.append(torch.get_num_threads())) for _ in range(2)]
for thread in threads: thread.start(); thread.join()
print(counts)
"""


def test_every_thread_of_a_process_has_the_threads_of_torch_that_are_set(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 1]"
