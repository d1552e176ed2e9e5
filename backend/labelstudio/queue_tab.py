"""The Data Manager tab that shows an admin the published queue in its order."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.schema import REASON_KEY

TITLE = "Queue"
_ORDERING = ["tasks:predictions_score"]
_SHOWN = ("tasks:id", "tasks:predictions_score", "tasks:predictions_model_versions", "tasks:total_annotations")


def add_queue_tab(client: LabelStudio, project_id: int) -> bool:
    """Add the tab unless the project has it; True when added.

    It follows every later version by itself, and a task leaves it once it is labelled.
    """
    views = client.views(project_id)
    if any(_is_ours(view) for view in views):
        return False
    if not views:
        # Label Studio makes its default tab only while there is none, and this one hides labelled tasks.
        client.create_view(project_id, {"title": "Default", "type": "list", "target": "tasks"})
    client.create_view(project_id, _data(client.columns(project_id)))
    return True


def remove_queue_tab(client: LabelStudio, project_id: int, keep: Collection[int] = ()) -> None:
    """Delete the tab, except those whose id is in `keep`."""
    for view in client.views(project_id):
        if _is_ours(view) and int(view["id"]) not in keep:
            client.delete_view(int(view["id"]))


def _is_ours(view: dict[str, Any]) -> bool:
    data = view.get("data") or {}
    return data.get("title") == TITLE and data.get("ordering") == _ORDERING


def _data(columns: list[str]) -> dict[str, Any]:
    wanted = {*_SHOWN, *(column for column in columns if column.startswith("tasks:data."))}
    return {
        "title": TITLE,
        "type": "list",
        "target": "tasks",
        "ordering": _ORDERING,
        "filters": {
            "conjunction": "and",
            "items": [
                {
                    "filter": "filter:tasks:predictions_score",
                    "operator": "greater_or_equal",
                    "type": "Number",
                    "value": 0,
                },
                {
                    "filter": "filter:tasks:total_annotations",
                    "operator": "equal",
                    "type": "Number",
                    "value": 0,
                },
            ],
        },
        "gridWidth": 4,
        "columnsWidth": {f"tasks:data.{REASON_KEY}": 320},
        "hiddenColumns": {"explore": [column for column in columns if column not in wanted], "labeling": []},
    }
