"""JSON from outside, read into values that every database and every JSON writer can hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# Neither PostgreSQL's JSON (NUL) nor UTF-8 (half a surrogate pair) can hold these.
UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# Only an escape can bring one of them through JSON, so most texts need no second look.
_ESCAPED = re.compile(r"\\u(00[01]|[dD][89a-fA-F])|\\[bf]")


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text: characters that cannot be stored are left out, numbers that are none are null.

    Raises
    ------
    ValueError
        It is no JSON, or nested deeper than can be read.
    """
    decoded = text.decode() if isinstance(text, bytes) else text
    try:
        value = json.loads(decoded, parse_float=_finite, parse_constant=lambda name: None)
        return storable(value) if _ESCAPED.search(decoded) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def storable(value: Any) -> Any:
    """The same value without the characters that cannot be stored."""
    if isinstance(value, str):
        return UNSTORABLE.sub("", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
