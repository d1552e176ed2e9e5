"""Webhooks, ML backend connections and Data Manager tabs of a project."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backend.labelstudio.records import MLBackend, Webhook
from backend.labelstudio.session import Session


class Connections:
    """Calls about what a project is connected to and which tabs it shows."""

    http: Session

    def webhooks(self, project_id: int) -> list[Webhook]:
        """Webhooks of the project, the automatic ones of ML backends included."""
        answer = self.http.request("GET", "/api/webhooks/", params={"project": project_id})
        return [Webhook.read(raw) for raw in answer]

    def create_webhook(
        self,
        project_id: int,
        url: str,
        actions: Sequence[str],
        headers: Mapping[str, str] | None = None,
        send_payload: bool = True,
    ) -> Webhook:
        """Have Label Studio POST the given actions to `url`. It tries once, waits 1 s, and never repeats."""
        body = _webhook_body(url, actions, False, send_payload, True, headers or {})
        return Webhook.read(self.http.request("POST", "/api/webhooks/", body={"project": project_id, **body}))

    def update_webhook(
        self,
        webhook: Webhook,
        *,
        url: str | None = None,
        actions: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        is_active: bool | None = None,
    ) -> Webhook:
        """Change a webhook. All of it is sent, because an update without `actions` empties their list."""
        body = _webhook_body(
            webhook.url if url is None else url,
            webhook.actions if actions is None else actions,
            webhook.send_for_all_actions if actions is None else False,
            webhook.send_payload,
            webhook.is_active if is_active is None else is_active,
            webhook.headers if headers is None else headers,
        )
        return Webhook.read(self.http.request("PATCH", f"/api/webhooks/{webhook.id}/", body=body))

    def delete_webhook(self, webhook_id: int) -> None:
        self.http.request("DELETE", f"/api/webhooks/{webhook_id}/")

    def ml_backends(self, project_id: int) -> list[MLBackend]:
        """Connected ML backends. Label Studio calls /health and /setup of each before it answers."""
        answer = self.http.request("GET", "/api/ml", params={"project": project_id})
        return [MLBackend.read(raw) for raw in answer]

    def connect_backend(
        self,
        project_id: int,
        url: str,
        title: str,
        options: Mapping[str, Any] | None = None,
        basic_auth: tuple[str, str] | None = None,
    ) -> MLBackend:
        """Connect an ML backend. Label Studio calls its /health and /setup and refuses when they fail."""
        body = {"project": project_id, **_backend_body(url, title, options, basic_auth)}
        return MLBackend.read(self.http.request("POST", "/api/ml", body=body))

    def update_backend(
        self,
        backend: MLBackend,
        *,
        url: str | None = None,
        title: str | None = None,
        options: Mapping[str, Any] | None = None,
        basic_auth: tuple[str, str] | None = None,
    ) -> MLBackend:
        """Change a connection. Label Studio calls /setup with the new values before it stores them.

        Of the authentication, which must be among them, it fills in a password left blank by the one it has.
        """
        if basic_auth is None and backend.auth_method == "BASIC_AUTH":
            basic_auth = (backend.basic_auth_user, "")
        body = _backend_body(
            backend.url if url is None else url,
            backend.title if title is None else title,
            options,
            basic_auth,
        )
        if options is None:
            del body["extra_params"]
        body["project"] = backend.project_id
        return MLBackend.read(self.http.request("PATCH", f"/api/ml/{backend.id}", body=body))

    def delete_backend(self, backend_id: int) -> None:
        """Disconnect. Label Studio keeps the automatic webhook and tells the backend nothing."""
        self.http.request("DELETE", f"/api/ml/{backend_id}")

    def add_local_files(self, project_id: int, folder: str, title: str) -> None:
        """Let the project's tasks refer to files of a folder as `/data/local-files/?d=...`; once a folder.

        The folder must lie below Label Studio's LOCAL_FILES_DOCUMENT_ROOT.
        """
        known = self.http.request("GET", "/api/storages/localfiles", params={"project": project_id})
        if not any(storage["path"] == folder for storage in known):
            body = {"project": project_id, "path": folder, "title": title, "use_blob_urls": True}
            self.http.request("POST", "/api/storages/localfiles", body=body)

    def views(self, project_id: int) -> list[dict[str, Any]]:
        """Data Manager tabs as raw JSON: `id`, and `data` with `title`, `filters`, `ordering`..."""
        return list(self.http.request("GET", "/api/dm/views/", params={"project": project_id}))

    def create_view(self, project_id: int, data: Mapping[str, Any]) -> int:
        """Add a Data Manager tab and return its id."""
        body = {"project": project_id, "data": dict(data)}
        return int(self.http.request("POST", "/api/dm/views/", body=body)["id"])

    def delete_view(self, view_id: int) -> None:
        self.http.request("DELETE", f"/api/dm/views/{view_id}/")

    def columns(self, project_id: int) -> list[str]:
        """Names of all Data Manager columns, as tabs refer to them (`tasks:id`, `tasks:data.image`)."""
        answer = self.http.request("GET", "/api/dm/columns/", params={"project": project_id})
        return [
            f"tasks:data.{column['id']}" if column.get("parent") == "data" else f"tasks:{column['id']}"
            for column in answer["columns"]
        ]


def _webhook_body(
    url: str,
    actions: Sequence[str],
    all_actions: bool,
    send_payload: bool,
    is_active: bool,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "url": url,
        "actions": list(actions),
        "send_for_all_actions": all_actions,
        "send_payload": send_payload,
        "is_active": is_active,
        "headers": dict(headers),
    }


def _backend_body(
    url: str, title: str, options: Mapping[str, Any] | None, basic_auth: tuple[str, str] | None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "url": url,
        "title": title,
        # As text: the settings page shows an object as "[object Object]" and would save those words.
        "extra_params": json.dumps(dict(options or {})),
    }
    if basic_auth is not None:
        user, password = basic_auth
        body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
    return body
