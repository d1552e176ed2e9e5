"""Label Studio with what only annotators do, and the tests in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import requests

from backend.errors import LocalLabelStudioError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio, Progress, form_token


class AnnotatorClient(LabelStudio):
    """The client of the backend, and the calls behind an annotator's buttons."""

    def delete_annotations_of(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Delete all annotations and drafts of the given tasks."""
        self._bulk_action(project_id, "delete_tasks_annotations", task_ids)

    def skip(self, task_id: int) -> dict[str, Any]:
        """Skip a task, as the Skip button does."""
        return self.create_annotation(task_id, [], was_cancelled=True)

    def update_annotation(self, annotation_id: int, **fields: Any) -> dict[str, Any]:
        return dict(self.http.request("PATCH", f"/api/annotations/{annotation_id}/", body=fields))

    def delete_annotation(self, annotation_id: int) -> None:
        self.http.request("DELETE", f"/api/annotations/{annotation_id}/")

    def start_training(self, backend_id: int) -> None:
        """What the "Start training" button does: Label Studio sends START_TRAINING to the backend."""
        self.http.request("POST", f"/api/ml/{backend_id}/train", body={})


class RestartableLabelStudio(LocalLabelStudio):
    """A server that can be restarted, whose users have personal access tokens."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.personal_tokens: dict[str, str] = {}

    def client(self, account: Account | None = None) -> AnnotatorClient:
        return AnnotatorClient(self.url, (account or self.admin).token)

    def restart(self, progress: Progress | None = None) -> None:
        """Stop and start again on the same port with the same data."""
        self.stop()
        self.start(progress=progress)

    def personal_token(self, account: Account | None = None) -> str:
        """The account's personal access token; the first call makes it, as the account page does.

        Label Studio gives each user one and shows it once.
        """
        who = account or self.admin
        if who.email in self.personal_tokens:
            return self.personal_tokens[who.email]
        web = _log_in(self.url, who.email, who.password)
        answer = web.post(
            f"{self.url}/api/token/",
            headers={"X-CSRFToken": web.cookies.get("csrftoken") or "", "Referer": self.url},
            timeout=30,
        )
        if answer.status_code == 409:
            raise LocalLabelStudioError(f"{who.email} already has a personal access token; it is shown only once")
        if answer.status_code != 201:
            raise LocalLabelStudioError(f"No personal access token for {who.email}: {answer.status_code}")
        self.personal_tokens[who.email] = str(answer.json()["token"])
        return self.personal_tokens[who.email]


def _log_in(url: str, email: str, password: str) -> requests.Session:
    web = requests.Session()
    web.trust_env = False
    page = f"{url}/user/login/"
    form = {
        "email": email,
        "password": password,
        "csrfmiddlewaretoken": form_token(web.get(page, timeout=30).text),
    }
    answer = web.post(page, data=form, headers={"Referer": page}, allow_redirects=False, timeout=30)
    if answer.status_code != 302:
        raise LocalLabelStudioError(f"{email} could not sign in at {url}: wrong password?")
    return web
