"""A backup: one archive of all tables, vectors and heads, made while web process and worker go on.

The tables are read in one transaction, as JSON lines, so that a backup of SQLite can be restored into PostgreSQL and
the other way round. Files are copied afterwards: a row of a vector is on disk before its number is in the database,
and never changes, so each number of the earlier snapshot has its bytes in the later copy. A checksum of every member
is in the manifest, the last member: an archive without it was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from alembic.migration import MigrationContext
from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from backend import __version__
from backend.errors import BackupInvalid, StoreFull
from backend.store import faults
from backend.store.database import Store
from backend.store.tables import Base, Lease

FORMAT = 1
MANIFEST = "manifest.json"
TABLES = "tables"
# Who runs what at the moment is not worth keeping.
LEFT_OUT = frozenset({Lease.__tablename__})
COPY_BYTES = 2**20
ROWS_AT_A_TIME = 2000


@dataclass
class Manifest:
    """What an archive holds and what is needed to read it.

    schema: the migration its tables are at; files: member -> SHA-256; tables: name -> number of rows.
    """

    schema: str
    format: int = FORMAT
    version: str = __version__
    made_at: float = field(default_factory=time.time)
    database: str = ""
    tables: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def back_up(store: Store, target: Path) -> Manifest:
    """Write a backup of the whole store to `target`, which exists only once it is complete.

    Raises
    ------
    BackupInvalid
        There is a file of this name already, or none can be written.
    StoreDamaged, StoreFull
    """
    if target.exists():
        raise BackupInvalid(f"{target} exists already: a backup overwrites nothing. Choose another name.")
    draft = target.with_name(f"{target.name}.part")
    try:
        # It holds the secret of our webhook.
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
                manifest = _write(store, archive)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
    except OSError as error:
        kind = StoreFull if error.errno in faults.NO_SPACE else BackupInvalid
        raise kind(f"The backup {target} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _write(store: Store, archive: tarfile.TarFile) -> Manifest:
    with store.reading() as session:
        schema = MigrationContext.configure(session.connection()).get_current_revision()
        manifest = Manifest(schema=str(schema), database=store.engine.dialect.name)
        for table in Base.metadata.sorted_tables:
            if table.name not in LEFT_OUT:
                with tempfile.TemporaryFile() as rows:
                    manifest.tables[table.name] = _write_rows(session, table, rows)
                    _add(archive, manifest, f"{TABLES}/{table.name}.jsonl", rows)
    for name in faults.file_names(store.data_dir):
        try:
            file = open(store.data_dir / name, "rb")  # noqa: SIM115  (closed below)
        except FileNotFoundError:
            continue  # a head that newer rounds have replaced since
        with file:
            _add(archive, manifest, name, file)
    _add_manifest(archive, manifest)
    return manifest


def _write_rows(session: Session, table: Table, file: IO[bytes]) -> int:
    count = 0
    for row in session.execute(select(table).execution_options(yield_per=ROWS_AT_A_TIME)).mappings():
        file.write(json.dumps(dict(row), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _add(archive: tarfile.TarFile, manifest: Manifest, name: str, file: IO[bytes]) -> None:
    """One member, as long as the file is now: what a writer appends meanwhile belongs to later rows."""
    member = tarfile.TarInfo(name)
    member.size = file.seek(0, os.SEEK_END)
    member.mtime, member.mode = int(manifest.made_at), 0o600
    file.seek(0)
    hashed = _Hashing(file)
    archive.addfile(member, hashed)
    manifest.files[name] = hashed.digest.hexdigest()


def _add_manifest(archive: tarfile.TarFile, manifest: Manifest) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(asdict(manifest), indent=1).encode())
        _add(archive, Manifest(manifest.schema, made_at=manifest.made_at), MANIFEST, file)


class _Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def unpack(source: Path, folder: Path) -> Manifest:
    """Unpack an archive and compare every checksum; what is in `folder` afterwards can be trusted.

    Raises
    ------
    BackupInvalid
        It is no backup, was cut off, or was changed.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                found[member.name] = _extract(archive, member, folder)
        manifest = Manifest(**json.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError as error:
        missing = "no such file" if error.filename == str(source) else "its manifest is missing: it was cut off"
        raise BackupInvalid(f"{source}: {missing}.") from error
    except (OSError, EOFError, tarfile.TarError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in faults.NO_SPACE:
            raise StoreFull(f"No space to unpack {source} in {folder}: {error}") from error
        raise BackupInvalid(f"{source} is no complete backup of this program: {error}") from error
    del found[MANIFEST]
    wrong = sorted(
        name for name in found.keys() | manifest.files.keys() if found.get(name) != manifest.files.get(name)
    )
    if wrong:
        raise BackupInvalid(
            f"{source} was changed or damaged: the checksum of {wrong[0]} is not that of its manifest."
        )
    return manifest


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> str:
    parts = member.name.split("/")
    known = parts[0] in (TABLES, *faults.FOLDERS) or member.name == MANIFEST
    file = archive.extractfile(member) if member.isfile() else None
    if file is None or not known or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"its member {member.name!r} does not belong there")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(path, "xb") as target:
        while data := file.read(COPY_BYTES):
            target.write(data)
            digest.update(data)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def read_rows(folder: Path, table: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a table of an unpacked archive, in portions."""
    portion: list[dict[str, Any]] = []
    with open(folder / TABLES / f"{table}.jsonl", "rb") as file:
        for line in file:
            portion.append(json.loads(line))
            if len(portion) == ROWS_AT_A_TIME:
                yield portion
                portion = []
    if portion:
        yield portion
