"""What the commands of `mmal` have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backend.rounds.services import Services

ProjectOption = Annotated[int, typer.Option("--project", "-p", help="Number of the project in Label Studio.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_services() -> Services:
    """Settings and store, as the environment says."""
    # Imported late: `mmal --help` should not wait for the libraries of a round.
    from backend.rounds.services import Services
    from backend.settings import load_settings

    return Services(load_settings())


def print_json(value: Any) -> None:
    """Print a value for programs, indented for people."""
    typer.echo(json.dumps(value, indent=2, default=str))
