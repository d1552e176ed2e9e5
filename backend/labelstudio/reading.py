"""Reading tasks: complete, in few calls, and right even while tasks change under the reader.

Pages are cut by value (the last id, the last time stamp), never by page number: a row that moves while the
list is being read would shift the pages, and a row of the next page would be skipped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from backend.labelstudio.records import StoredPrediction, TaskSnapshot, format_time
from backend.labelstudio.session import Session, in_chunks

_LIGHT = "id,data,updated_at"
# `include` also trims the nested annotations, so their fields must be listed with the task's.
_WITH_ANNOTATIONS = _LIGHT + ",annotations,result,completed_by,was_cancelled,ground_truth,task,created_at"
IDS_A_CALL = 400  # keeps the address below 8 kB, the limit of common proxies
_PAGE_BYTES = 32_000_000
_PAGE_TIMEOUT = 180.0
_RUN = 16  # neighbouring tasks a random point of a sample

_Filter = tuple[str, str, str, Any]


class TaskReading:
    """Calls that read tasks, annotations and stored predictions of a project."""

    http: Session

    def iter_tasks(self, project_id: int, page_size: int = 5000) -> Iterator[TaskSnapshot]:
        """All tasks in the order of their ids, without annotations (50,000 took 43 s on a busy two-core machine)."""
        for page in self._pages_by_id(project_id, [], _LIGHT, page_size):
            yield from map(TaskSnapshot.read, page)

    def sample_tasks(self, project_id: int, count: int, rng: random.Random) -> list[TaskSnapshot]:
        """About `count` tasks from random places of the project, with annotations, in a few dozen short calls.

        Runs of neighbouring ids from uniform points between the lowest and the highest id.
        """
        ends = [
            self._page(project_id, {"ordering": [order]}, "id", 1, with_annotations=False)[0]
            for order in ("tasks:id", "-tasks:id")
        ]
        if not all(ends):
            return []
        low, high = (int(rows[0]["id"]) for rows in ends)
        found: dict[int, TaskSnapshot] = {}
        for _ in range(-(-count // _RUN)):
            query = _query([("id", "greater", "Number", rng.randint(low - 1, high - 1))], "id")
            rows, _total = self._page(project_id, query, _WITH_ANNOTATIONS, _RUN, with_annotations=True)
            found.update((snapshot.id, snapshot) for snapshot in map(TaskSnapshot.read, rows))
        return list(found.values())

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all tasks."""
        pages = self._pages_by_id(project_id, [], "id", 10_000)
        return {int(row["id"]) for page in pages for row in page}

    def tasks_by_id(self, project_id: int, ids: Iterable[int]) -> dict[int, TaskSnapshot]:
        """Those of the given tasks that still exist in the project, without annotations."""
        return self._chosen(project_id, ids, _LIGHT, False)

    def tasks_with_annotations(self, project_id: int, ids: Iterable[int]) -> dict[int, TaskSnapshot]:
        """As `tasks_by_id`, with annotations."""
        return self._chosen(project_id, ids, _WITH_ANNOTATIONS, True)

    def _chosen(
        self, project_id: int, ids: Iterable[int], include: str, with_annotations: bool
    ) -> dict[int, TaskSnapshot]:
        found: dict[int, TaskSnapshot] = {}
        for chunk in in_chunks(sorted(set(ids)), IDS_A_CALL):
            for page in self._pages_by_id(project_id, [], include, len(chunk), with_annotations, chunk):
                found.update((snapshot.id, snapshot) for snapshot in map(TaskSnapshot.read, page))
        return found

    def annotated_tasks(self, project_id: int, page_size: int = 500) -> Iterator[TaskSnapshot]:
        """Tasks with at least one annotation or skip, with their annotations, each once."""
        seen: set[int] = set()
        # Two passes: the Data Manager joins all filters by one conjunction, and the page mark needs "and".
        for column in ("total_annotations", "cancelled_annotations"):
            wanted: list[_Filter] = [(column, "greater", "Number", 0)]
            for page in self._pages_by_id(project_id, wanted, _WITH_ANNOTATIONS, page_size, True):
                for snapshot in map(TaskSnapshot.read, page):
                    if snapshot.id not in seen:
                        seen.add(snapshot.id)
                        yield snapshot

    def changed_tasks(self, project_id: int, since: datetime, page_size: int = 200) -> Iterator[TaskSnapshot]:
        """Tasks whose `updated_at` is later than `since`, oldest change first, with all annotations.

        New, edited, deleted and skipped annotations move `updated_at`, and so do single stored predictions;
        deleted tasks are not seen here. A task that changes while this runs may come twice, the later state last.
        Pass a `since` that overlaps the last reading: Label Studio stamps a row before it commits it.
        """
        mark = since
        while True:
            wanted: list[_Filter] = [("updated_at", "greater", "Datetime", format_time(mark))]
            rows, total = self._page(
                project_id, _query(wanted, "updated_at"), _WITH_ANNOTATIONS, page_size, with_annotations=True
            )
            page = [TaskSnapshot.read(row) for row in rows]
            yield from page
            if not page or len(page) >= total:
                return
            # Bulk actions give one time stamp to thousands of tasks, so the page may end inside such a group.
            mark = page[-1].updated_at
            already = {snapshot.id for snapshot in page if snapshot.updated_at == mark}
            same: list[_Filter] = [("updated_at", "equal", "Datetime", format_time(mark))]
            for group in self._pages_by_id(project_id, same, _WITH_ANNOTATIONS, page_size, True):
                yield from (snap for snap in map(TaskSnapshot.read, group) if snap.id not in already)

    def stored_predictions(self, project_id: int, version: str, most: int | None = None) -> list[StoredPrediction]:
        """Predictions of one version, or those of its first `most` tasks; each task is read with all it has."""
        wanted: list[_Filter] = [("predictions_model_versions", "contains", "List", [version])]
        found: dict[int, StoredPrediction] = {}
        fields = "id,predictions,model_version,score,result"
        for page in self._pages_by_id(project_id, wanted, fields, min(500, most or 500), True):
            for row in page:
                for raw in row.get("predictions") or ():
                    if raw.get("model_version") == version:
                        found[int(raw["id"])] = StoredPrediction.read(raw, int(row["id"]))
            if most is not None and len(found) >= most:
                break
        return [found[key] for key in sorted(found)]

    def queue_left(self, project_id: int) -> int:
        """Tasks that hold a prediction of the version in force and no annotation: what is served in order."""
        wanted: list[_Filter] = [
            ("predictions_score", "greater_or_equal", "Number", 0),
            ("total_annotations", "equal", "Number", 0),
        ]
        return self._page(project_id, _query(wanted, "id"), "id", 1, with_annotations=False)[1]

    def _pages_by_id(
        self,
        project_id: int,
        wanted: Sequence[_Filter],
        include: str,
        page_size: int,
        with_annotations: bool = False,
        only: Sequence[int] = (),
    ) -> Iterator[list[dict[str, Any]]]:
        last_id = 0
        size = min(page_size, 500)
        while True:
            query = _query([*wanted, ("id", "greater", "Number", last_id)], "id")
            if only:
                query["selectedItems"] = {"all": False, "included": list(only)}
            rows, total = self._page(project_id, query, include, size, with_annotations=with_annotations)
            if rows:
                yield rows
            # Some installations cap the page size, so a short page is no sign of the end.
            if not rows or len(rows) >= total:
                return
            last_id = int(rows[-1]["id"])
            size = _fitting_size(rows, page_size)

    def _page(
        self,
        project_id: int,
        query: Mapping[str, Any],
        include: str,
        page_size: int,
        *,
        with_annotations: bool,
    ) -> tuple[list[dict[str, Any]], int]:
        answer = self.http.request(
            "GET",
            "/api/tasks/",
            params={
                "project": project_id,
                "page": 1,
                "page_size": page_size,
                "fields": "all" if with_annotations else "task_only",
                "include": include,
                # Otherwise cloud addresses come back signed and different in each call.
                "resolve_uri": "false",
                "query": json.dumps(query),
            },
            timeout=_PAGE_TIMEOUT,
        )
        return list(answer["tasks"]), int(answer["total"])


def _query(wanted: Sequence[_Filter], ordering: str) -> dict[str, Any]:
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
        for column, operator, kind, value in wanted
    ]
    return {"filters": {"conjunction": "and", "items": items}, "ordering": [f"tasks:{ordering}"]}


def _fitting_size(rows: Sequence[Mapping[str, Any]], page_size: int) -> int:
    """Rows for the next page: as many as asked, fewer where tasks are heavy (images inside the data)."""
    sample = list(islice(rows, 20))
    mean_bytes = sum(len(json.dumps(row)) for row in sample) / len(sample)
    return max(1, min(page_size, int(_PAGE_BYTES / max(mean_bytes, 1.0))))
