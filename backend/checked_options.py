"""Options as fields of frozen dataclasses, each with its help and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any


def option(default: Any, help_text: str, **limits: Any) -> Any:
    """A dataclass field that is an option; limits: ``low``, ``high`` (inclusive) or ``choices``."""
    return field(default=default, metadata={"help": help_text, **limits})


def option_problem(name: str, value: Any, default: Any, limits: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, in words that name it and say what would do; None where nothing is."""
    wanted = type(default)
    fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and wanted is not bool):
        return f"{name} is {value!r}; it must be {wanted.__name__}, for example {default!r}"
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        return f"{name} is {value!r}; choose one of {list(choices)}"
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        return f"{name} is {value!r}; it must lie between {low} and {high}"
    return None
