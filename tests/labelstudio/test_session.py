"""What a session does when Label Studio is slow, restarting, moved, or says no."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
import requests
import responses

from backend.errors import LabelStudioRefused, LabelStudioUnreachable, ProjectNotFound, PublishRefused, TokenRefused
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.session import Session, token_kind

URL = "http://label-studio.test/prefix"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def jwt(**claims: Any) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


PERSONAL = jwt(token_type="refresh", exp=4_000_000_000)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers for the URL above; waiting between attempts is left out."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def calls(web: Any, method: str, path: str) -> int:
    return sum(c.request.method == method and c.request.path_url == f"/prefix{path}" for c in web.calls)


def test_kinds_of_token_are_told_apart() -> None:
    assert token_kind(LEGACY) == "legacy"
    assert token_kind(PERSONAL) == "personal"


@pytest.mark.parametrize("key", ["", "  "])
def test_missing_token_is_refused_at_once(key: str) -> None:
    with pytest.raises(TokenRefused, match="LABEL_STUDIO_API_KEY is empty"):
        Session(URL, key)


def test_address_without_scheme_is_refused_at_once() -> None:
    with pytest.raises(LabelStudioUnreachable, match="must start with http"):
        Session("localhost:8080", LEGACY)


def test_access_token_is_fetched_once_and_again_before_it_expires(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for number in range(3):
        web.post(f"{URL}/api/token/refresh/", json={"access": jwt(n=number, exp=now + 300 * (number + 1))})
    session = Session(URL, PERSONAL)
    first = session.authorization()
    assert session.authorization() == first
    assert calls(web, "POST", "/api/token/refresh/") == 1
    monkeypatch.setattr("backend.labelstudio.session.time.time", lambda: now + 250)
    second = session.authorization()
    assert second != first and second["Authorization"].startswith("Bearer ")
    assert calls(web, "POST", "/api/token/refresh/") == 2


def test_refused_access_token_is_exchanged_once_more_and_no_more(web: Any) -> None:
    web.post(f"{URL}/api/token/refresh/", json={"access": jwt(exp=4_000_000_000)})
    web.get(f"{URL}/x", status=401, json={"detail": "gone"})
    with pytest.raises(TokenRefused, match="gone"):
        Session(URL, PERSONAL).request("GET", "/x")
    assert calls(web, "GET", "/x") == 2 and calls(web, "POST", "/api/token/refresh/") == 2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_gateway_errors_are_waited_out(web: Any, status: int) -> None:
    web.get(f"{URL}/x", status=status, body="<html>")
    web.get(f"{URL}/x", status=status, body="<html>")
    web.get(f"{URL}/x", json={"fine": 1})
    assert Session(URL, LEGACY).request("GET", "/x") == {"fine": 1}


def test_locked_database_is_waited_out(web: Any) -> None:
    web.patch(f"{URL}/x", status=500, json={"detail": "database is locked"})
    web.patch(f"{URL}/x", json={"fine": 1})
    assert Session(URL, LEGACY).request("PATCH", "/x", body={}) == {"fine": 1}


def test_other_server_errors_are_told_at_once(web: Any) -> None:
    web.get(f"{URL}/x", status=500, json={"detail": "division by zero"})
    with pytest.raises(LabelStudioRefused, match="500: division by zero") as refused:
        Session(URL, LEGACY).request("GET", "/x")
    assert refused.value.status == 500 and calls(web, "GET", "/x") == 1


def test_attempts_end_with_the_last_error(web: Any) -> None:
    web.get(f"{URL}/x", body=requests.ConnectionError("reset by peer"))
    with pytest.raises(LabelStudioUnreachable, match=URL):
        Session(URL, LEGACY, attempts=3).request("GET", "/x")
    assert calls(web, "GET", "/x") == 3


@pytest.mark.parametrize("error", [requests.ReadTimeout("slow"), requests.ConnectionError("reset by peer")])
def test_posting_is_not_repeated_when_it_may_have_arrived(web: Any, error: Exception) -> None:
    web.post(f"{URL}/x", body=error)
    with pytest.raises(LabelStudioUnreachable):
        Session(URL, LEGACY).request("POST", "/x", body={})
    assert calls(web, "POST", "/x") == 1


def test_posting_is_repeated_when_it_never_arrived(web: Any) -> None:
    web.post(f"{URL}/x", body=requests.ConnectTimeout("no answer"))
    web.post(f"{URL}/x", json={"fine": 1})
    assert Session(URL, LEGACY).request("POST", "/x", body={}) == {"fine": 1}


def test_redirects_are_told_and_not_followed(web: Any) -> None:
    web.post(f"{URL}/x", status=301, headers={"Location": "https://label-studio.test/x"})
    with pytest.raises(LabelStudioRefused, match=r"redirects to https://label-studio.test/x. Set LABEL_STUDIO_URL"):
        Session(URL, LEGACY).request("POST", "/x", body={})


def test_pages_instead_of_json_are_told(web: Any) -> None:
    web.get(f"{URL}/x", body="<html>sign in</html>", content_type="text/html")
    with pytest.raises(LabelStudioRefused, match=r"text/html and not JSON. Does LABEL_STUDIO_URL"):
        Session(URL, LEGACY).request("GET", "/x")


def test_validation_errors_are_told_in_one_line(web: Any) -> None:
    said = {"detail": "Validation error", "validation_errors": {"title": ["too\nshort", "odd"], "url": "bad"}}
    web.post(f"{URL}/x", status=400, json=said)
    with pytest.raises(LabelStudioRefused) as refused:
        Session(URL, LEGACY).request("POST", "/x", body={})
    assert refused.value.detail == "Validation error; title: too short odd; url: bad"


def test_netrc_of_the_machine_does_not_replace_the_token(
    web: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine label-studio.test login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    web.get(f"{URL}/x", json={})
    Session(URL, LEGACY).request("GET", "/x")
    assert web.calls[0].request.headers["Authorization"] == f"Token {LEGACY}"


def test_missing_project_is_told_from_other_refusals(web: Any) -> None:
    web.get(f"{URL}/api/projects/7/", status=404, json={"detail": "No Project matches the given query."})
    web.get(f"{URL}/api/projects/8/", status=403, json={"detail": "You do not have permission"})
    client = LabelStudio(URL, LEGACY)
    with pytest.raises(ProjectNotFound, match="Project 7"):
        client.project(7)
    with pytest.raises(LabelStudioRefused, match="permission"):
        client.project(8)


def test_dropped_rows_are_an_error_though_label_studio_says_created(web: Any) -> None:
    web.post(f"{URL}/api/projects/7/import/predictions", status=201, json={"created": 1})
    rows = [{"task": 1, "result": [], "score": 0.0, "model_version": "v"}] * 2
    with pytest.raises(PublishRefused, match="stored 1 of 2"):
        LabelStudio(URL, LEGACY).import_predictions(7, rows)


def test_capped_pages_do_not_end_the_reading(web: Any) -> None:
    """An installation may cap the page size: then a short page is not the last."""
    tasks = [{"id": n, "data": {}, "updated_at": "2026-01-01T00:00:00Z"} for n in range(1, 8)]

    def page(request: Any) -> tuple[int, dict[str, str], str]:
        items = json.loads(request.params["query"])["filters"]["items"]
        after = next(i["value"] for i in items if i["filter"] == "filter:tasks:id")
        rest = [task for task in tasks if task["id"] > after]
        return 200, {}, json.dumps({"tasks": rest[:3], "total": len(rest)})

    web.add_callback(responses.GET, f"{URL}/api/tasks/", callback=page)
    client = LabelStudio(URL, LEGACY)
    assert [s.id for s in client.iter_tasks(1)] == list(range(1, 8))
    assert set(client.tasks_by_id(1, range(1, 8))) == set(range(1, 8))
