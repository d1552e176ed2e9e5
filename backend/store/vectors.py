"""Vectors: float16 rows in growing files, found by content hash.

Every process that embeds appends to a file of its own, which nobody else ever writes: processes on several hosts that
share the folder need no lock, and one that was stopped for an hour and comes back harms nobody. The number of a row
says which file it is in, and where. It is put into the database after the bytes are on disk, so a crash in between
leaves bytes without a number, never a number without bytes.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend.store import faults
from backend.store.database import Store
from backend.store.tables import Vector
from backend.store.tasks import CHUNK

DTYPE = np.dtype(np.float16)
# Row numbers are (number of the file) * ROWS_A_FILE + (place in it). File 0 is the only one of earlier versions.
ROWS_A_FILE = 2**32
FILES = 2**30

# (process, folder, modality) -> number of its file; a forked child makes its own. One thread appends at a time.
_own_files: dict[tuple[int, Path, str], int] = {}
_appending = threading.Lock()


class VectorStore:
    """The vectors of one encoder.

    Parameters
    ----------
    dims
        Modality to number of dimensions.
    """

    def __init__(self, store: Store, encoder_id: str, dims: Mapping[str, int]) -> None:
        self.store, self.encoder_id, self.dims = store, encoder_id, dict(dims)
        self.folder = store.data_dir / "vectors" / re.sub(r"[^A-Za-z0-9._-]+", "_", encoder_id)
        self.folder.mkdir(parents=True, exist_ok=True)

    def known(self, modality: str, hashes: Iterable[str]) -> set[str]:
        """Those contents that have a vector already."""
        wanted = list(set(hashes))
        found: set[str] = set()
        with self.store.reading() as session:
            for start in range(0, len(wanted), CHUNK):
                found.update(
                    session.scalars(
                        select(Vector.content_hash).where(
                            Vector.encoder_id == self.encoder_id,
                            Vector.modality == modality,
                            Vector.content_hash.in_(wanted[start : start + CHUNK]),
                        )
                    )
                )
        return found

    def append(self, modality: str, hashes: Sequence[str], vectors: NDArray[np.floating]) -> None:
        """Store one row a hash; hashes that are there already are left as they are.

        Raises
        ------
        StoreFull
            None of the rows is kept; append them again when there is space.
        """
        rows = np.ascontiguousarray(vectors, dtype=DTYPE)
        if rows.shape != (len(hashes), self.dims[modality]):
            raise ValueError(f"{modality} vectors: shape {rows.shape}, expected {(len(hashes), self.dims[modality])}")
        first_of: dict[str, int] = {}
        for i, content in enumerate(hashes):
            first_of.setdefault(content, i)
        with _appending:
            known = self.known(modality, first_of)
            # Sorted: two processes that note the same contents wait for each other in the same order.
            fresh = sorted(h for h in first_of if h not in known)
            if not fresh:
                return
            start = self._write(modality, rows[[first_of[h] for h in fresh]])
            key = {"encoder_id": self.encoder_id, "modality": modality}
            noted = [{**key, "content_hash": h, "row": start + i} for i, h in enumerate(fresh)]
            with self.store.statement() as session:
                # Where another process was faster, its vector counts and the bytes here lie idle.
                self.store.upsert(session, Vector, noted, [])

    def _write(self, modality: str, rows: NDArray[np.float16]) -> int:
        """Put rows at the end of this process's file; returns the number of the first."""
        with faults.space_needed(self.store.data_dir):
            number = self._own_file(modality)
            with open(self._path(modality, number), "r+b") as file:
                end = file.seek(0, os.SEEK_END)
                # An earlier append that failed half way may have left part of a row.
                start = -(-end // rows[0].nbytes)
                file.seek(start * rows[0].nbytes)
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())
        return number * ROWS_A_FILE + start

    def _own_file(self, modality: str) -> int:
        mine = (os.getpid(), self.folder.resolve(), modality)
        found = _own_files.get(mine)
        if found is None or not self._path(modality, found).exists():
            found = _own_files[mine] = self._make_file(modality)
        return found

    def _make_file(self, modality: str) -> int:
        while True:
            # At random, and not one more than the last: a restored backup knows nothing of the files made since.
            number = 1 + secrets.randbelow(FILES)
            try:
                # Exclusive on every file system, shared ones included: of two processes one gets the number.
                os.close(os.open(self._path(modality, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                continue
            return number

    def gather(self, modality: str, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Vectors of these rows, (len(rows), D); a row of -1 gives zeros: the modality is absent."""
        result = np.zeros((len(rows), self.dims[modality]), DTYPE)
        files = np.where(rows >= 0, rows // ROWS_A_FILE, -1)
        for number in np.unique(files[files >= 0]):
            path, width = self._path(modality, int(number)), self.dims[modality]
            # A writer that was killed may have left part of a row at the end.
            length = path.stat().st_size // (width * DTYPE.itemsize)
            stored = np.memmap(path, DTYPE, mode="r", shape=(length, width))
            here = files == number
            result[here] = stored[rows[here] % ROWS_A_FILE]
        return result

    def _path(self, modality: str, number: int) -> Path:
        return self.folder / (f"{modality}.{number:08x}.f16" if number else f"{modality}.f16")
