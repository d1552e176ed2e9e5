"""What the client returns: the fields this project reads, nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.labelstudio.annotations import parse_time


@dataclass(frozen=True)
class ProjectInfo:
    """A project; the counts are as of this call. `model_version` is None when no version is in force."""

    id: int
    title: str
    description: str
    label_config: str
    model_version: str | None
    sampling: str
    show_collab_predictions: bool
    maximum_annotations: int
    task_number: int
    total_annotations_number: int
    skipped_annotations_number: int
    total_predictions_number: int
    created_at: datetime

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> ProjectInfo:
        return cls(
            id=int(raw["id"]),
            title=raw.get("title") or "",
            description=raw.get("description") or "",
            label_config=raw.get("label_config") or "",
            model_version=raw.get("model_version") or None,
            sampling=raw.get("sampling") or "",
            show_collab_predictions=bool(raw.get("show_collab_predictions")),
            maximum_annotations=int(raw.get("maximum_annotations") or 1),
            task_number=int(raw.get("task_number") or 0),
            total_annotations_number=int(raw.get("total_annotations_number") or 0),
            skipped_annotations_number=int(raw.get("skipped_annotations_number") or 0),
            total_predictions_number=int(raw.get("total_predictions_number") or 0),
            created_at=parse_time(raw.get("created_at")),
        )


@dataclass(frozen=True)
class TaskSnapshot:
    """A task as it was when read.

    `annotations` holds annotation JSON (for `annotations.read_answer`); None when the call did not ask for it.
    """

    id: int
    data: Mapping[str, Any]
    updated_at: datetime
    annotations: tuple[Mapping[str, Any], ...] | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> TaskSnapshot:
        annotations = raw.get("annotations")
        task_id = int(raw["id"])
        return cls(
            id=task_id,
            data=raw.get("data") or {},
            updated_at=parse_time(raw.get("updated_at")),
            annotations=None
            if annotations is None
            else tuple({"task": task_id, **annotation} for annotation in annotations),
        )


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction that Label Studio holds."""

    id: int
    task_id: int
    model_version: str
    score: float | None
    result: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, raw: Mapping[str, Any], task_id: int) -> StoredPrediction:
        return cls(
            id=int(raw["id"]),
            task_id=task_id,
            model_version=raw.get("model_version") or "",
            score=raw.get("score"),
            result=tuple(raw.get("result") or ()),
        )


@dataclass(frozen=True)
class Webhook:
    """A webhook. With `send_for_all_actions` the list of actions is empty and means all."""

    id: int
    project_id: int | None
    url: str
    actions: tuple[str, ...]
    send_for_all_actions: bool
    send_payload: bool
    is_active: bool
    headers: Mapping[str, str]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Webhook:
        return cls(
            id=int(raw["id"]),
            project_id=raw.get("project"),
            url=raw.get("url") or "",
            actions=tuple(raw.get("actions") or ()),
            send_for_all_actions=bool(raw.get("send_for_all_actions")),
            send_payload=bool(raw.get("send_payload")),
            is_active=bool(raw.get("is_active")),
            headers=dict(raw.get("headers") or {}),
        )


@dataclass(frozen=True)
class MLBackend:
    """An ML backend connection. `state` is "CO" when connected; `error_message` says what failed otherwise."""

    id: int
    project_id: int
    url: str
    title: str
    state: str
    error_message: str | None
    model_version: str | None
    extra_params: Any
    is_interactive: bool
    auth_method: str
    basic_auth_user: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> MLBackend:
        return cls(
            id=int(raw["id"]),
            project_id=int(raw["project"]),
            url=raw.get("url") or "",
            title=raw.get("title") or "",
            state=raw.get("state") or "",
            error_message=raw.get("error_message"),
            model_version=raw.get("model_version"),
            extra_params=raw.get("extra_params"),
            is_interactive=bool(raw.get("is_interactive")),
            auth_method=raw.get("auth_method") or "NONE",
            basic_auth_user=raw.get("basic_auth_user") or "",
        )

    @property
    def options(self) -> dict[str, Any] | None:
        """`extra_params` as a mapping; None when it is neither one nor the JSON text of one."""
        given = self.extra_params
        if given in (None, ""):
            return {}
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError:
                return None
        return dict(given) if isinstance(given, Mapping) else None


def format_time(moment: datetime) -> str:
    """Time stamp in the one format that Data Manager filters parse; the fraction must be present."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
