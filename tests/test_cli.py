"""The `mmal` command says what it can do, and the documentation says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from backend.cli import app

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"


def commands(group: click.Command, path: str = "mmal") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        for name, command in sorted(group.commands.items()):
            yield from commands(command, f"{path} {name}")
    else:
        yield path, group


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL)
def test_every_command_is_documented_with_all_its_options(path: str) -> None:
    text = DOCUMENT.read_text()
    assert f"### `{path}`" in text
    section = text.split(f"### `{path}`")[1].split("\n### ")[0]
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert any(f"`{name}`" in section for name in parameter.opts), (path, parameter.opts)


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
