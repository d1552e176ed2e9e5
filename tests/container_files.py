"""docker-compose.yml as Compose reads it (anchors merged, variables put in), and the Dockerfile's instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

REPOSITORY = Path(__file__).parents[1]
COMPOSE = REPOSITORY / "docker-compose.yml"
EXAMPLE = REPOSITORY / ".env.example"
# `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?words}`: what the file uses of Compose's interpolation.
VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:-|:\?)([^}]*))?\})")


class VariableMissing(Exception):
    """Compose would stop here with these words."""


def raw() -> dict[str, Any]:
    """The file before interpolation."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services with the variables put in."""
    found: dict[str, dict[str, Any]] = interpolated(raw()["services"], variables)
    return found


def example_variables() -> dict[str, str]:
    """The lines of .env.example."""
    return {name: value or "" for name, value in dotenv_values(EXAMPLE).items()}


def filled_in() -> dict[str, str]:
    """.env.example as a careful admin fills it in."""
    example = example_variables()
    secrets = {name: f"{name.lower().replace('_', '')}7" for name in example if re.search("PASS|TOKEN", name)}
    return {**example, **secrets, "LABEL_STUDIO_USER_TOKEN": "0123456789abcdef" * 2 + "01234567"}


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", (REPOSITORY / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(words[0], words[1]) for words in lines]


def image_environment() -> dict[str, str]:
    """Variables the image sets."""
    return dict(pair.split("=", 1) for name, words in dockerfile() if name == "ENV" for pair in words.split())


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    return VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, rule, words = found.groups()
    if name is None:
        return "$"
    given = variables.get(name, "")
    if given or rule is None:
        return given
    if rule == ":-":
        return str(words)
    raise VariableMissing(f"{name}: {words}")
