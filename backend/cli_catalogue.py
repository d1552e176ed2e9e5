"""`mmal catalogue` and `mmal stream`: what a pairing project asks about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from backend.cli_options import JsonOption, ProjectOption, open_services, print_json

catalogue_app = typer.Typer(help="The images and texts of a pairing project.", no_args_is_help=True)
stream_app = typer.Typer(help="Items that arrive one after the other.", no_args_is_help=True)

ImagesOption = Annotated[Path | None, typer.Option(help="Folder of images, or .csv/.jsonl/.json of addresses.")]
TextsOption = Annotated[Path | None, typer.Option(help=".csv, .jsonl or .json of texts, or .txt with one a line.")]
PrefixOption = Annotated[str, typer.Option(help="Address that leads to the folder; without it tasks hold copies.")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Change contents that answers speak of: they say the same.")
]


@catalogue_app.command("add")
def catalogue_add(
    project: ProjectOption,
    images: ImagesOption = None,
    texts: TextsOption = None,
    image_prefix: PrefixOption = "",
    replace: ReplaceOption = False,
) -> None:
    """Add images and texts to the pools; safe to repeat, what is there already stays as it is."""
    from backend.rounds.pairing.filling import add_items

    added = add_items(
        open_services(), project, images=images, texts=texts, image_prefix=image_prefix, replace=replace
    )
    typer.echo(f"project {project}: {added.given} items, {added.changed} of them new or changed")


@catalogue_app.command("show")
def catalogue_show(project: ProjectOption, as_json: JsonOption = False) -> None:
    """How many items and pairs there are, what contradicts what, and what cannot be read."""
    from backend.rounds.pairing.overview import overview, overview_lines

    found = overview(open_services(), project)
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(overview_lines(found)))


@catalogue_app.command("pairs")
def catalogue_pairs(project: ProjectOption) -> None:
    """The pairs known so far as JSON lines: ids of the image and the text, and the task that says so."""
    from backend.rounds.pairing.overview import pair_rows

    for row in pair_rows(open_services(), project):
        typer.echo(json.dumps(row, ensure_ascii=False))


@stream_app.command("push")
def stream_push(
    project: ProjectOption,
    images: ImagesOption = None,
    texts: TextsOption = None,
    image_prefix: PrefixOption = "",
    replace: ReplaceOption = False,
) -> None:
    """Items that arrived just now: a full buffer of them is a round, or each is judged by itself (stream_mode)."""
    from backend.rounds.pairing.filling import add_items

    added = add_items(
        open_services(), project, images=images, texts=texts, image_prefix=image_prefix, stream=True, replace=replace
    )
    typer.echo(f"project {project}: {added.given} items, {added.changed} of them new or changed, wait in the stream")
