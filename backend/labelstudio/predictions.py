"""Labels and ranks -> prediction JSON that Label Studio stores and serves in exactly that order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from label_studio_sdk.label_interface import LabelInterface

from backend.errors import PredictionsInvalid
from backend.labelstudio.schema import TaskSchema

PredictionRow = dict[str, Any]


def queue_row(
    task_id: int,
    rank: int,
    queue_length: int,
    version: str,
    schema: TaskSchema,
    answer: str | Sequence[str] | None = None,
    confidence: float | None = None,
) -> PredictionRow:
    """One row of a published queue.

    Label Studio serves the lowest score first and drops scores outside [0, 1] in silence, so the score is
    rank / queue_length: exact, without ties, below 1. With `answer` the form opens with it already ticked;
    `confidence` in [0, 1] is stored beside it.
    """
    if not 0 <= rank < queue_length:
        raise ValueError(f"rank {rank} is not in a queue of {queue_length}")
    return {
        "task": task_id,
        "result": _result(schema, answer, confidence),
        "score": rank / queue_length,
        "model_version": version,
    }


def live_result(
    version: str,
    score: float,
    schema: TaskSchema,
    answer: str | Sequence[str] | None = None,
    confidence: float | None = None,
) -> PredictionRow:
    """One entry of the `/predict` reply.

    A score that is not finite would be stored as null, so it is refused.
    """
    if not math.isfinite(score):
        raise ValueError(f"score must be finite, got {score}")
    return {"result": _result(schema, answer, confidence), "score": float(score), "model_version": version}


def _result(schema: TaskSchema, answer: str | Sequence[str] | None, confidence: float | None) -> list[dict[str, Any]]:
    picked = [answer] if isinstance(answer, str) else list(answer or ())
    if not picked:
        return []
    unknown = [choice for choice in picked if choice not in schema.choices]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not among the choices {', '.join(schema.choices)}")
    region: dict[str, Any] = {
        "from_name": schema.from_name,
        "to_name": schema.to_name,
        "type": "choices",
        "value": {"choices": picked},
    }
    if confidence is not None:
        region["score"] = float(confidence)
    return [region]


def check_rows(label_config: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Hold rows against the validator that Label Studio itself uses, before anything is sent.

    Label Studio answers 201 and keeps only the rows that pass, so a bad row must be found here.

    Raises
    ------
    PredictionsInvalid
        Names the number of bad rows and the first three with their fault.
    """
    interface = LabelInterface(label_config)
    problems: list[str] = []
    for row in rows:
        faults = _faults(interface, row)
        if faults:
            problems.append(f"task {row.get('task')}: {'; '.join(faults)}")
    if problems:
        raise PredictionsInvalid(
            f"{len(problems)} of {len(rows)} predictions do not fit the label config, nothing was sent."
            f" First: {' | '.join(problems[:3])}"
        )


def _faults(interface: LabelInterface, row: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        # The validator lets null and text pass; both would break the order.
        faults.append(f"score {score!r} is not a number in [0, 1]")
    if not row.get("model_version"):
        faults.append("model_version is empty")
    try:
        found = interface.validate_prediction(dict(row), return_errors=True)
        faults.extend(str(fault) for fault in found or [])
    except Exception as error:  # the validator fails on shapes it does not expect
        faults.append(f"the validator failed: {error}")
    return faults
