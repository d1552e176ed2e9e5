"""Vectors: float16 rows in one growing file an encoder and modality, found by content hash.

The row number is decided in the database. A crash between writing a row and committing its number leaves
bytes that the next append overwrites, never a number without bytes.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from backend.store import faults
from backend.store.database import Store
from backend.store.tables import Vector

DTYPE = np.dtype(np.float16)


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
            for start in range(0, len(wanted), 500):
                found.update(
                    session.scalars(
                        select(Vector.content_hash).where(
                            Vector.encoder_id == self.encoder_id,
                            Vector.modality == modality,
                            Vector.content_hash.in_(wanted[start : start + 500]),
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
        with open(self.folder / f"{modality}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self.known(modality, first_of)
            fresh = [h for h in first_of if h not in known]
            if not fresh:
                return
            with self.store.reading() as session:
                top = session.scalar(
                    select(func.max(Vector.row)).where(
                        Vector.encoder_id == self.encoder_id, Vector.modality == modality
                    )
                )
            start = 0 if top is None else top + 1
            path = self._path(modality)
            with (
                faults.space_needed(self.store.data_dir),
                open(path, "r+b" if path.exists() else "w+b") as file,
            ):
                file.seek(start * self.dims[modality] * DTYPE.itemsize)
                file.write(rows[[first_of[h] for h in fresh]].tobytes())
                file.flush()
                os.fsync(file.fileno())
            with self.store.writing() as session:
                session.add_all(
                    Vector(encoder_id=self.encoder_id, modality=modality, content_hash=h, row=start + i)
                    for i, h in enumerate(fresh)
                )

    def gather(self, modality: str, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Vectors of these rows, (len(rows), D); a row of -1 gives zeros: the modality is absent."""
        result = np.zeros((len(rows), self.dims[modality]), DTYPE)
        present = rows >= 0
        if present.any():
            path, width = self._path(modality), self.dims[modality]
            # A writer that was killed may have left part of a row at the end.
            length = path.stat().st_size // (width * DTYPE.itemsize)
            stored = np.memmap(path, DTYPE, mode="r", shape=(length, width))
            result[present] = stored[rows[present]]
        return result

    def _path(self, modality: str) -> Path:
        return self.folder / f"{modality}.f16"
