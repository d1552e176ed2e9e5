"""Predictions, model versions and the reason field: what the order of a queue is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backend.errors import LabelStudioRefused, PublishRefused, UnknownTasks
from backend.labelstudio.reading import IDS_A_CALL, TaskReading
from backend.labelstudio.session import in_chunks

_WRITE_TIMEOUT = 600.0
_TASKS_A_WRITE = 1000


class Publishing(TaskReading):
    """Calls that change which task Label Studio serves next."""

    def import_predictions(self, project_id: int, rows: Sequence[Mapping[str, Any]]) -> int:
        """Store prediction rows in one call and return how many were stored, which is all of them.

        Not repeated after a time-out, because Label Studio adds and never replaces: use a new version name.

        Raises
        ------
        UnknownTasks
            Some tasks are gone; Label Studio stored nothing. Holds the ids of all of them.
        PublishRefused
            Label Studio refused the batch, or dropped rows (it answers 201 and says nothing).
        """
        if not rows:
            return 0
        try:
            answer = self.http.request(
                "POST",
                f"/api/projects/{project_id}/import/predictions",
                body=[dict(row) for row in rows],
                timeout=_WRITE_TIMEOUT,
            )
        except LabelStudioRefused as refused:
            if refused.status != 400:
                raise
            # The answer names only the first unknown task, so ask for the rest.
            sent = {int(row["task"]) for row in rows}
            missing = frozenset(sent - self.tasks_by_id(project_id, sent).keys())
            if missing:
                some = ", ".join(str(task) for task in sorted(missing)[:5])
                raise UnknownTasks(
                    f"{len(missing)} of {len(sent)} tasks are no longer in project {project_id} ({some});"
                    " nothing was stored. Leave them out and send again",
                    missing,
                ) from None
            raise PublishRefused(
                f"Project {project_id} refused {len(rows)} predictions: {refused.detail}"
            ) from refused
        created = int(answer["created"])
        if created != len(rows):
            raise PublishRefused(
                f"Project {project_id} stored {created} of {len(rows)} predictions. It drops rows whose score is"
                " outside [0, 1] or whose result does not fit the label config; its own log names them"
            )
        return created

    def set_model_version(self, project_id: int, version: str | None) -> None:
        """Put a version in force; None puts none in force (Label Studio then serves in random order)."""
        self.http.request("PATCH", f"/api/projects/{project_id}/", body={"model_version": version or ""})

    def model_versions(self, project_id: int) -> dict[str, int]:
        """Number of stored predictions of each version."""
        answer = self.http.request("GET", f"/api/projects/{project_id}/model-versions/")
        # The name in force is listed with 0 even when it is a connection's title and no version at all.
        return {str(version): int(count) for version, count in (answer or {}).items() if count}

    def delete_model_version(self, project_id: int, version: str) -> int:
        """Delete a version's predictions, 4-5 ms each, and return their number.

        Deleting the version in force puts none in force: set the next one first.
        """
        answer = self.http.request(
            "DELETE",
            f"/api/projects/{project_id}/model-versions/",
            body={"model_version": version},
            timeout=_WRITE_TIMEOUT,
        )
        return int((answer or {}).get("deleted_predictions", 0))

    def delete_prediction(self, prediction_id: int) -> bool:
        """Delete one prediction in a call short enough not to hold up annotators; False when it was gone."""
        try:
            self.http.request("DELETE", f"/api/predictions/{prediction_id}/")
        except LabelStudioRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def overlaps(self, project_id: int, task_ids: Iterable[int]) -> dict[int, int]:
        """Task -> how many annotators have to answer it until Label Studio counts it as done; gone ones left out."""
        found: dict[int, int] = {}
        for chunk in in_chunks(sorted(set(task_ids)), IDS_A_CALL):
            for page in self._pages_by_id(project_id, [], "id,overlap", len(chunk), only=chunk):
                found.update((int(row["id"]), int(row["overlap"])) for row in page)
        return found

    def set_overlap(self, task_id: int, overlap: int, *, done: bool) -> bool:
        """Have a task answered by so many annotators; False when it is gone.

        Parameters
        ----------
        done
            Whether it has as many answers: Label Studio only counts again when an annotation comes or goes, and a
            task that it takes for done is served to nobody.
        """
        try:
            self.http.request("PATCH", f"/api/tasks/{task_id}/", body={"overlap": overlap, "is_labeled": done})
        except LabelStudioRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def write_field(self, project_id: int, task_ids: Iterable[int], key: str, value: str) -> None:
        """Set one string field in the data of many tasks and leave the other fields alone.

        Does not move `updated_at` (the fallback does). An empty value clears. Ids that no longer exist are
        passed over.
        """
        for chunk in in_chunks(sorted(set(task_ids)), _TASKS_A_WRITE):
            try:
                self.http.request(
                    "POST",
                    "/api/dm/actions/",
                    params={"id": "add_data_field", "project": project_id},
                    body={
                        "selectedItems": {"all": False, "included": list(chunk)},
                        "value_name": key,
                        "value_type": "String",
                        "value": value,
                    },
                    repeatable=True,
                    timeout=_WRITE_TIMEOUT,
                )
            except LabelStudioRefused as refused:
                if refused.status in (401, 403):
                    raise
                # The bulk action is marked experimental in Label Studio and may go away.
                self._write_field_singly(project_id, chunk, key, value)

    def _write_field_singly(self, project_id: int, task_ids: Iterable[int], key: str, value: str) -> None:
        for task_id, snapshot in self.tasks_by_id(project_id, task_ids).items():
            if snapshot.data.get(key, "") == value:
                continue
            # PATCH replaces the whole data, so all of it goes back.
            self.http.request("PATCH", f"/api/tasks/{task_id}/", body={"data": {**snapshot.data, key: value}})
