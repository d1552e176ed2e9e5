"""What a pairing form sends."""

from __future__ import annotations

from typing import Any

from backend.labelstudio.schema import TaskSchema


def answer_regions(schema: TaskSchema, *choices: str, written: str | None = None) -> list[dict[str, Any]]:
    """The `result` that the form would send for these choices."""
    regions: list[dict[str, Any]] = [_region(schema.from_name, schema.to_name, "choices", {"choices": [*choices]})]
    if written is not None and schema.written is not None:
        regions.append(_region(schema.written, schema.to_name, "textarea", {"text": [written]}))
    return regions


def _region(from_name: str, to_name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": from_name, "to_name": to_name, "type": kind, "value": value}
