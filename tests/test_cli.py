"""The `mmal` command says what it can do, and the documentation says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from backend.cli import app

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"
OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


# By attribute and not by click's classes: some versions of typer bring a click of their own.
def commands(group: Any, path: str = "mmal") -> Iterator[tuple[str, Any]]:
    if hasattr(group, "commands"):
        for name, command in sorted(group.commands.items()):
            yield from commands(command, f"{path} {name}")
    else:
        yield path, group


ALL = dict(commands(typer.main.get_command(app)))


def test_the_commands_of_every_group_are_found() -> None:
    assert {"mmal status", "mmal project attach", "mmal strategy set", "mmal data get"} <= ALL.keys()


@pytest.mark.parametrize("path", ALL)
def test_every_command_is_documented_with_all_its_options(path: str) -> None:
    text = DOCUMENT.read_text()
    assert f"### `{path}`" in text
    section = text.split(f"### `{path}`")[1].split("\n### ")[0]
    for parameter in ALL[path].params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert all(f"`{name}`" in section for name in parameter.opts), (path, parameter.opts)


def test_the_documentation_names_no_command_that_is_gone() -> None:
    named = {line[5:-1] for line in DOCUMENT.read_text().splitlines() if line.startswith("### `mmal")}
    assert named == set(ALL)


@pytest.mark.parametrize("path", ALL)
def test_every_command_helps_in_words(path: str) -> None:
    result = CliRunner().invoke(app, [*path.split()[1:], "--help"])
    assert result.exit_code == 0
    assert ALL[path].help
    for parameter in ALL[path].params:
        assert getattr(parameter, "help", "") or parameter.name == "help", (path, parameter.name)


def test_settings_lists_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.settings import Settings, load_settings

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a-secret-token")
    load_settings.cache_clear()
    output = CliRunner().invoke(app, ["settings"]).output
    load_settings.cache_clear()
    assert "a-secret-token" not in output
    for variable, _, _, meaning in Settings().rows():
        assert f"{variable} = " in output
        assert meaning in output


def test_operations_names_every_variable_with_its_default() -> None:
    from backend.settings import Settings

    lines = OPERATIONS.read_text().splitlines()
    for variable, _, default, _ in Settings().rows():
        [row] = [line for line in lines if line.startswith(f"| `{variable}` |")]
        assert row.split("|")[2].strip() == (f"`{default}`" if default else "empty"), variable


def test_the_documentation_names_every_option_of_a_project() -> None:
    from backend.rounds.options import ProjectOptions

    text = DOCUMENT.read_text()
    for name in ProjectOptions.model_fields:
        assert f"\n| `{name}` |" in text, name
