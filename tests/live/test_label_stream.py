"""What an annotator sees, in a real browser: the published order, and the reason or nothing in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.predictions import queue_row
from backend.labelstudio.project_setup import SAMPLING
from backend.labelstudio.queue_tab import add_queue_tab
from backend.labelstudio.records import ProjectInfo
from backend.labelstudio.schema import REASON_KEY
from backend.labelstudio.task_templates import TaskTemplate, create_project

from .browser import is_next_task, signed_in
from .conftest import REPOSITORY

pytestmark = pytest.mark.live

REASON = "Why now: unlike anything answered so far."


@pytest.fixture(scope="module")
def page(label_studio: LocalLabelStudio) -> Iterator[Page]:
    """A browser signed in as the admin."""
    with signed_in(label_studio) as page:
        yield page


@pytest.fixture
def published(client: LabelStudio, request: pytest.FixtureRequest) -> tuple[ProjectInfo, list[int]]:
    """A project from a template, its tasks published in the reverse of their ids, the first with a reason."""
    template = TaskTemplate.load(REPOSITORY / "tasks_templates" / "image_text_classification")
    labels = template.example_labels
    made = create_project(client, template, request.node.name[-50:], labels, template.sample_tasks())
    order = list(made.task_ids)[::-1]
    schema = template.schema(labels)
    rows = [queue_row(task, rank, len(order), "v1-test", schema) for rank, task in enumerate(order)]
    client.import_predictions(made.project.id, rows)
    fields: dict[str, Any] = {"sampling": SAMPLING, "model_version": "v1-test", "show_instruction": False}
    project = client.update_project(made.project.id, **fields)
    client.write_field(project.id, order[:1], REASON_KEY, REASON)
    add_queue_tab(client, project.id)
    return project, order


def test_label_all_tasks_follows_the_queue_and_shows_the_reason_only_where_there_is_one(
    page: Page, client: LabelStudio, published: tuple[ProjectInfo, list[int]]
) -> None:
    project, order = published
    page.goto(f"{client.url}/projects/{project.id}/data")
    with page.expect_response(is_next_task) as first:
        page.get_by_text("Label All Tasks").click()
    assert first.value.json()["id"] == order[0]
    assert first.value.request.post_data_json == {"project": str(project.id)}
    page.get_by_text(REASON).wait_for()
    page.locator(".al-image img").first.wait_for(state="attached")
    page.keyboard.press("2")
    with page.expect_response(is_next_task) as second:
        page.get_by_test_id("bottombar-submit-button").click()
    assert second.value.json()["id"] == order[1]
    # No reason in this task: the box takes no room.
    page.get_by_text(REASON).wait_for(state="detached")
    page.locator(".al-image img").first.wait_for(state="attached")
    assert page.locator(".al-why").count() == 1 and page.locator(".al-why").is_hidden()
    (annotation,) = client.task(order[0]).annotations or ()
    assert annotation["result"][0]["value"] == {"choices": ["advertisement"]}


def test_a_bare_link_to_the_label_stream_passes_the_queue_by(
    page: Page, client: LabelStudio, published: tuple[ProjectInfo, list[int]]
) -> None:
    """Why annotators are sent to the project and press "Label All Tasks" there."""
    project, order = published
    page.evaluate("localStorage.clear()")
    with page.expect_response(is_next_task) as first:
        page.goto(f"{client.url}/projects/{project.id}/data?labeling=1")
    assert "ordering" in first.value.request.post_data_json
    assert first.value.json()["id"] == min(order)


def test_queue_tab_lists_the_queue_in_order(
    page: Page, client: LabelStudio, published: tuple[ProjectInfo, list[int]]
) -> None:
    project, order = published
    (tab,) = (view for view in client.views(project.id) if view["data"]["title"] == "Queue")
    page.goto(f"{client.url}/projects/{project.id}/data?tab={tab['id']}")
    page.get_by_text(REASON).wait_for()
    text = page.inner_text("body")
    places = [text.index(str(task)) for task in order]
    assert places == sorted(places)
    assert "Default" in text and "al_reason" in text
