"""Label Studio as this project uses it: typed calls over raw JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.errors import LabelStudioRefused, ProjectNotFound
from backend.labelstudio.connections import Connections
from backend.labelstudio.publishing import Publishing
from backend.labelstudio.records import ProjectInfo, TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.labelstudio.session import Session, in_chunks

_IMPORT_TIMEOUT = 600.0
_TASKS_AN_IMPORT = 2500
_ANSWER_ATTEMPTS = 5
# By the annotations themselves: the counts of a task lag behind while predictions are imported.
_UNTOUCHED = {
    "conjunction": "and",
    "items": [
        {"filter": "filter:tasks:annotations_ids", "operator": "empty", "type": "List", "value": True},
        {"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean", "value": False},
    ],
}


@dataclass(frozen=True)
class ServedTask:
    """The task that "Label All Tasks" opens next; `queue` is Label Studio's word for why."""

    id: int
    data: Mapping[str, Any]
    queue: str
    predictions: tuple[Mapping[str, Any], ...]


class LabelStudio(Publishing, Connections):
    """One Label Studio and one API key. Safe to share between threads.

    Parameters
    ----------
    url : base address, with the path prefix if there is one
    api_key : personal access token or legacy token; which one is found out
    timeout : seconds to wait for an answer; bulk calls have longer ones of their own
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 60.0, attempts: int = 4) -> None:
        self.http = Session(url, api_key, timeout=timeout, attempts=attempts)

    @property
    def url(self) -> str:
        return self.http.url

    def authorization(self) -> dict[str, str]:
        """Header that Label Studio accepts now, for media it serves itself."""
        return self.http.authorization()

    def server_time(self) -> datetime:
        """Label Studio's clock at its last answer, to the second; the clock that stamps `updated_at`."""
        return self.http.answered_at

    def whoami(self) -> dict[str, Any]:
        """The user of the API key: `id`, `email`, `active_organization`..."""
        return dict(self.http.request("GET", "/api/current-user/whoami"))

    # Projects

    def project(self, project_id: int) -> ProjectInfo:
        """Settings and counts of a project. Raises ProjectNotFound."""
        try:
            return ProjectInfo.read(self.http.request("GET", f"/api/projects/{project_id}/"))
        except LabelStudioRefused as refused:
            if refused.status == 404:
                raise ProjectNotFound(
                    f"Project {project_id} does not exist at {self.url}, or the API key's user may not see it"
                ) from None
            raise

    def projects(self) -> list[ProjectInfo]:
        """All projects that the API key's user may see."""
        found: list[ProjectInfo] = []
        page = 1
        while True:
            answer = self.http.request("GET", "/api/projects/", params={"page": page, "page_size": 100})
            found += [ProjectInfo.read(raw) for raw in answer["results"]]
            if not answer.get("next"):
                return found
            page += 1

    def create_project(self, title: str, label_config: str, description: str = "", **fields: Any) -> ProjectInfo:
        """Create a project; `fields` are sent as they are (`expert_instruction`, `sampling`...)."""
        body = {"title": title, "label_config": label_config, "description": description, **fields}
        return ProjectInfo.read(self.http.request("POST", "/api/projects/", body=body))

    def update_project(self, project_id: int, **fields: Any) -> ProjectInfo:
        """Change project settings; each call makes Label Studio send PROJECT_UPDATED."""
        return ProjectInfo.read(self.http.request("PATCH", f"/api/projects/{project_id}/", body=fields))

    # Tasks

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tasks and return their ids in order.

        Each entry is the task's data, or `{"data": ..., "annotations": [...], "predictions": [...]}`.
        """
        ids: list[int] = []
        for chunk in in_chunks(tasks, _TASKS_AN_IMPORT):
            answer = self.http.request(
                "POST",
                f"/api/projects/{project_id}/import",
                params={"return_task_ids": "true"},
                body=[_import_row(task) for task in chunk],
                timeout=_IMPORT_TIMEOUT,
            )
            ids += [int(task_id) for task_id in answer["task_ids"]]
        return ids

    def task(self, task_id: int) -> TaskSnapshot:
        """One task with its annotations. Opening a task without predictions makes Label Studio ask for some."""
        return TaskSnapshot.read(self.http.request("GET", f"/api/tasks/{task_id}/"))

    def delete_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Delete tasks with all that belongs to them."""
        self._bulk_action(project_id, "delete_tasks", task_ids)

    def delete_untouched_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Delete those of these tasks that hold no annotation, no skip and nobody's draft; tells which are gone.

        Label Studio looks itself, in the call that deletes, so what was saved up to then stays. Who merely has a task
        open is in no answer of its API: whatever they save afterwards is refused.
        """
        wanted = set(task_ids)
        found = self.tasks_with_annotations(project_id, wanted)
        unanswered = [task_id for task_id, task in found.items() if not task.annotations]
        self._bulk_action(project_id, "delete_tasks", unanswered, _UNTOUCHED)
        return wanted - self.tasks_by_id(project_id, wanted).keys()

    def delete_predictions_of(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Delete all predictions of the given tasks, whoever made them."""
        self._bulk_action(project_id, "delete_tasks_predictions", task_ids)

    def _bulk_action(
        self, project_id: int, action: str, task_ids: Iterable[int], filters: Mapping[str, Any] | None = None
    ) -> None:
        included = sorted(set(task_ids))
        if not included:
            return  # Label Studio reads an empty list as "all tasks"
        self.http.request(
            "POST",
            "/api/dm/actions/",
            params={"id": action, "project": project_id},
            body={"selectedItems": {"all": False, "included": included}, **({"filters": filters} if filters else {})},
            timeout=_IMPORT_TIMEOUT,
        )

    # Annotating

    def next_task(self, project_id: int) -> ServedTask | None:
        """The task that the API key's user would get next, which is locked for them; None when there is none."""
        try:
            raw = self.http.request("GET", f"/api/projects/{project_id}/next")
        except LabelStudioRefused as refused:
            if refused.status == 404:
                self.project(project_id)  # tells "no such project" from "no more tasks"
                return None
            raise
        return ServedTask(
            id=int(raw["id"]),
            data=raw.get("data") or {},
            queue=raw.get("queue") or "",
            predictions=tuple(raw.get("predictions") or ()),
        )

    def submit(self, task_id: int, schema: TaskSchema, choices: Sequence[str], **fields: Any) -> dict[str, Any]:
        """Annotate a task with the given choices (none: nothing ticked) and return the annotation JSON."""
        region = {
            "from_name": schema.from_name,
            "to_name": schema.to_name,
            "type": "choices",
            "value": {"choices": list(choices)},
        }
        return self.create_annotation(task_id, [region] if choices else [], **fields)

    def answer(self, served: ServedTask, schema: TaskSchema, choices: Sequence[str]) -> dict[str, Any]:
        """Submit the answer to the task that `next_task` served, and again where Label Studio failed to store it.

        On SQLite it gives up with a 500 when another write holds its database for five seconds. A served task has
        no answer of this user yet, so one that is there after a failure is the one that was sent.
        """
        for _ in range(_ANSWER_ATTEMPTS - 1):
            try:
                return self.submit(served.id, schema, choices)
            except LabelStudioRefused as refused:
                if refused.status < 500:
                    raise
            me = self.whoami()["id"]
            there = self.http.request("GET", f"/api/tasks/{served.id}/annotations/") or []
            stored = [annotation for annotation in there if annotation.get("completed_by") == me]
            if stored:
                return dict(stored[-1])
        return self.submit(served.id, schema, choices)

    def create_annotation(self, task_id: int, result: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        body = {"result": [dict(region) for region in result], **fields}
        return dict(self.http.request("POST", f"/api/tasks/{task_id}/annotations/", body=body))


def _import_row(task: Mapping[str, Any]) -> dict[str, Any]:
    return dict(task) if isinstance(task.get("data"), Mapping) else {"data": dict(task)}
