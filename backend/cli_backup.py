"""`mmal backup` and `mmal restore`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from backend.store.backup import Manifest


def backup(
    file: Annotated[Path | None, typer.Argument(help="Archive to write; default: mmal-DATE-TIME.tar.gz.")] = None,
) -> None:
    """Write store, vectors and heads into one archive, while web process and worker go on."""
    from backend.settings import load_settings
    from backend.store import open_store
    from backend.store.backup import back_up

    target = file or Path(time.strftime("mmal-%Y%m%d-%H%M%S.tar.gz"))
    manifest = back_up(open_store(load_settings()), target)
    typer.echo(f"{target}: {_summary(manifest)}; {target.stat().st_size / 1e6:.1f} MB")


def restore(
    file: Annotated[Path, typer.Argument(help="Archive of `mmal backup`.")],
    replace: Annotated[bool, typer.Option("--replace", help="Although there is a store; it is moved aside.")] = False,
) -> None:
    """Fill the store from an archive: checked first, then exchanged at once; the worker must not run."""
    from backend.settings import load_settings
    from backend.store.restore import restore as put_back

    manifest, aside = put_back(load_settings(), file, replace=replace)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.made_at))
    typer.echo(f"restored as of {made}: {_summary(manifest)}")
    if aside is not None:
        typer.echo(f"what was there before is in {aside}; delete it when you are sure")


def _summary(manifest: Manifest) -> str:
    counted = (("projects", "projects"), ("tasks", "tasks"), ("answers", "answers"), ("vectors", "vectors"))
    return ", ".join(f"{manifest.tables.get(table, 0)} {words}" for table, words in counted)
