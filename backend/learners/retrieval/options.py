"""Options of retrieval models: frozen dataclasses that refuse what they cannot take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from backend.errors import InvalidRetrievalOption


def option(default: Any, help_text: str, **limits: Any) -> Any:
    """A dataclass field that is an option; limits: ``low``, ``high`` (inclusive) or ``choices``."""
    return field(default=default, metadata={"help": help_text, **limits})


@dataclass(frozen=True)
class RetrievalOptions:
    """Base of a model's options; constructing raises InvalidRetrievalOption."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            if spec.metadata:
                _check(spec.name, getattr(self, spec.name), spec.default, spec.metadata)


def _check(name: str, value: Any, default: Any, limits: Mapping[str, Any]) -> None:
    wanted = type(default)
    fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise InvalidRetrievalOption(f"{name} is {value!r}; it must be {wanted.__name__}, for example {default!r}")
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise InvalidRetrievalOption(f"{name} is {value!r}; choose one of {list(choices)}")
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise InvalidRetrievalOption(f"{name} is {value!r}; it must lie between {low} and {high}")
