"""Whether annotators find an answer ticked is the project's choice: seen in a real browser, on the real loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Response

from backend.labelstudio.local_server import LocalLabelStudio
from backend.rounds.connecting import detach_project, set_options
from backend.strategies import strategy_names
from tests.live.backend_process import wait_for
from tests.live.browser import is_next_task, keep_picture, signed_in
from tests.live.loop import Loop
from tests.live.pool import CONFIG

pytestmark = pytest.mark.live
KNOWN = f"choose one of {', '.join(strategy_names())}"

# A small picture, so that the form and its answers are seen without scrolling.
SMALL = CONFIG.replace('value="$photo"', 'value="$photo" maxWidth="160px" zoomControl="false"')
OPTIONS = {"batch_size": 10, "queue_size": 20, "poll_seconds": 1, "audit_share": 0}


@pytest.fixture(scope="module")
def page(label_studio: LocalLabelStudio) -> Iterator[Page]:
    """A browser signed in as the admin."""
    with signed_in(label_studio) as page:
        yield page


@contextlib.contextmanager
def learnt_loop(server: LocalLabelStudio, folder: Any, shown: bool = True) -> Iterator[Loop]:
    """A loop with a head: eight answers, and the round that follows them."""
    loop = Loop(server, folder, tasks=60, config=SMALL, options=OPTIONS)
    loop.client.update_project(loop.project_id, show_collab_predictions=shown)
    with loop:
        loop.wait_for_version()
        loop.label_batch(8)
        loop.wait_for_labels(8)
        # One that was due anyway may come first; after this one none is, so the queue stays as it is.
        loop.ask_for_round()
        yield loop


@pytest.fixture(scope="module")
def without(label_studio: LocalLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Nothing was said about pre-filling."""
    with learnt_loop(label_studio, tmp_path_factory.mktemp("without")) as loop:
        yield loop


@pytest.fixture(scope="module")
def prefilled(label_studio: LocalLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Pre-filling was switched on, in a project that did not show predictions before."""
    with learnt_loop(label_studio, tmp_path_factory.mktemp("with"), shown=False) as loop:
        version = loop.project.version
        set_options(loop.services, loop.project_id, {"prelabel": True}, "the test")
        loop.wait_for_version(after=version)
        yield loop


def ticked(page: Page) -> list[str]:
    """The answers ticked in the form on the page."""
    form = page.locator(".lsf-choice__checkbox input")
    form.first.wait_for(state="attached")
    # The form is drawn before the answer is put into it.
    page.wait_for_timeout(1000)
    return [name for name in form.evaluate_all("boxes => boxes.map(box => box.checked && box.name)") if name]


def label_stream(page: Page, loop: Loop) -> dict[str, Any]:
    """Press "Label All Tasks"; the task that Label Studio serves."""
    page.goto(f"{loop.server.url}/projects/{loop.project_id}/data")
    with page.expect_response(is_next_task) as served:
        page.get_by_text("Label All Tasks").click()
    answer: dict[str, Any] = served.value.json()
    return answer


def open_task(page: Page, loop: Loop, task_id: int) -> dict[str, Any]:
    """Open one task from the Data Manager, which makes Label Studio ask for a prediction where it has none."""

    def is_task(response: Response) -> bool:
        return f"/api/tasks/{task_id}" in response.url and response.request.method == "GET"

    with page.expect_response(is_task) as opened:
        page.goto(f"{loop.server.url}/projects/{loop.project_id}/data?task={task_id}")
    answer: dict[str, Any] = opened.value.json()
    return answer


def outside_the_queue(loop: Loop) -> list[int]:
    """Tasks that have no prediction and no answer."""
    answered = {task.id for task in loop.client.annotated_tasks(loop.project_id)}
    return sorted(set(loop.task_ids) - set(loop.queued_ids()) - answered)


def answer_of_the_head(loop: Loop, task_id: int) -> list[str]:
    """What /predict says."""
    task = {"id": task_id, "data": dict(loop.client.tasks_by_id(loop.project_id, [task_id])[task_id].data)}
    body = {"tasks": [task], "project": f"{loop.project_id}.1", "label_config": loop.project.label_config}
    [row] = requests.post(f"{loop.backend.url}/predict", json=body, timeout=30).json()["results"]
    return [choice for region in row["result"] for choice in region["value"]["choices"]]


def test_by_default_a_queued_task_opens_without_an_answer(page: Page, without: Loop) -> None:
    served = label_stream(page, without)
    assert served["id"] == without.queued_ids()[0]
    assert [p["result"] for p in served["predictions"]] == [[]]
    assert ticked(page) == []
    keep_picture(page, "prefill_off")


def test_by_default_a_task_predicted_on_demand_opens_without_an_answer(page: Page, without: Loop) -> None:
    task_id = outside_the_queue(without)[0]
    opened = open_task(page, without, task_id)
    [prediction] = opened["predictions"]
    assert prediction["model_version"].endswith("-live") and prediction["result"] == []
    assert 0 <= prediction["score"] < 1
    assert ticked(page) == []


def test_by_default_retrieved_predictions_bring_no_answers(page: Page, without: Loop) -> None:
    retrieve_predictions(page, without)
    rows = wait_for("predictions of all tasks", lambda: every_prediction(without, at_least=len(without.task_ids)))
    assert {str(row["model_version"]).endswith("-live") for row in rows} == {True, False}
    assert all(row["result"] == [] for row in rows)
    for task_id in (outside_the_queue(without)[1], without.queued_ids()[1]):
        opened = open_task(page, without, task_id)
        assert any(p["model_version"].endswith("-live") for p in opened["predictions"])
        assert ticked(page) == []
    assert label_stream(page, without)["id"] == without.queued_ids()[0]


def retrieve_predictions(page: Page, loop: Loop) -> None:
    """Select all tasks and choose "Retrieve Predictions", as an admin does in the Data Manager."""
    page.goto(f"{loop.server.url}/projects/{loop.project_id}/data?tab={default_tab(loop)}")
    page.locator("input[type=checkbox]").first.click(force=True)
    page.get_by_text(f"{len(loop.task_ids)} Tasks", exact=True).click()
    page.get_by_text("Retrieve Predictions", exact=True).click()
    page.get_by_role("button", name="Confirm").click()


def default_tab(loop: Loop) -> int:
    return next(int(view["id"]) for view in loop.client.views(loop.project_id) if view["data"]["title"] == "Default")


def every_prediction(loop: Loop, at_least: int) -> list[dict[str, Any]]:
    rows = loop.client.http.request("GET", "/api/predictions/", params={"project": loop.project_id})
    return rows if len({row["task"] for row in rows}) >= at_least else []


def test_prefilled_a_queued_task_opens_with_the_heads_answer(page: Page, prefilled: Loop) -> None:
    served = label_stream(page, prefilled)
    assert served["id"] == prefilled.queued_ids()[0]
    answer = answer_of_the_head(prefilled, served["id"])
    assert len(answer) == 1
    assert ticked(page) == answer
    keep_picture(page, "prefill_on")


def test_prefilled_a_task_predicted_on_demand_opens_with_the_heads_answer(page: Page, prefilled: Loop) -> None:
    task_id = outside_the_queue(prefilled)[0]
    opened = open_task(page, prefilled, task_id)
    assert [p["model_version"].endswith("-live") for p in opened["predictions"]] == [True]
    answer = answer_of_the_head(prefilled, task_id)
    assert len(answer) == 1
    assert ticked(page) == answer


def test_doctor_sees_when_predictions_are_hidden_and_the_next_round_shows_them(page: Page, prefilled: Loop) -> None:
    client, project_id = prefilled.client, prefilled.project_id
    version = prefilled.project.version
    hidden = client.update_project(project_id, show_collab_predictions=False)
    # Label Studio takes the version out of force as well; the worker puts it back.
    assert not hidden.model_version
    wait_for("the version to be in force again", lambda: client.project(project_id).model_version == version)
    assert label_stream(page, prefilled)["id"] == prefilled.queued_ids()[0]
    assert ticked(page) == []
    report = prefilled.backend.cli("doctor", "--project", str(project_id))
    assert report.returncode == 1
    assert "pre-filled answers: the project does not show predictions" in report.stdout
    prefilled.ask_for_round()
    assert client.project(project_id).show_collab_predictions
    detach_project(prefilled.services, project_id)
    assert not client.project(project_id).show_collab_predictions


def test_an_admin_reads_why_a_strategy_is_refused(page: Page, without: Loop) -> None:
    before = without.project.options
    page.goto(f"{without.server.url}/projects/{without.project_id}/settings/ml")
    # What the page still loads fills the dialog in again, over what was typed.
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Machine learning model options").click()
    page.get_by_text("Edit", exact=True).click()
    page.locator("textarea[name=extra_params]").fill('{"strategy": "bold"}')
    with page.expect_response(lambda answer: "/api/ml/" in answer.url and answer.request.method == "PATCH") as answer:
        page.get_by_text("Validate and Save").click()
    assert KNOWN in answer.value.text()
    words = page.get_by_text(f"strategy 'bold' does not exist; {KNOWN}")
    words.first.wait_for()
    page.wait_for_timeout(500)
    keep_picture(page, "strategy_refused")
    assert without.project.options == before
