"""Templates whose label is the pair itself: accepted, shown, answered and read back in a real Label Studio."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from backend.labelstudio.annotations import read_answer, resolve_label
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.local_server import Account, LocalLabelStudio
from backend.labelstudio.pair_answers import PairAnswer, read_pair_answer
from backend.labelstudio.pair_tasks import NONE, UNSURE, PairItem, query_task, thumbnail
from backend.labelstudio.predictions import check_rows, queue_row
from backend.labelstudio.project_setup import SAMPLING
from backend.labelstudio.schema import TaskSchema
from backend.labelstudio.task_templates import MadeProject, TaskTemplate, create_project, templates_in
from tests.live.browser import keep_picture, signed_in
from tests.pair_form import answer_regions

pytestmark = pytest.mark.live

FOLDER = Path(__file__).parents[2] / "tasks_templates"
TEMPLATES = {name: TaskTemplate.load(FOLDER / name) for name in templates_in(FOLDER)}
PAIRING = [name for name, template in TEMPLATES.items() if template.learner == "pairing"]
GRADED = [name for name, template in TEMPLATES.items() if template.learner == "alignment"]
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black")


def picture(colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(buffer, "PNG")
    return thumbnail(buffer.getvalue())


def caption_query(schema: TaskSchema, ids: Sequence[str] = COLOURS, number: int = 0) -> dict[str, Any]:
    """A caption with one-coloured images to choose from; the item ids default to the colours."""
    items = [PairItem(item_id, picture(colour)) for item_id, colour in zip(ids, COLOURS, strict=False)]
    return _query(schema, "text", PairItem(f"caption {number}", "The sea at noon, all blue"), items)


def image_query(schema: TaskSchema, ids: Sequence[str] = COLOURS, number: int = 0) -> dict[str, Any]:
    """An image with captions to choose from, some of which would be markup or fields if they were not escaped."""
    words = ["<b>red</b> & $text", "a \"quoted\" 'orange'", "{{yellow}}", "$image", *COLOURS[4:]]
    items = [PairItem(item_id, caption) for item_id, caption in zip(ids, words, strict=False)]
    return _query(schema, "image", PairItem(f"image {number}", picture("blue")), items)


def _query(schema: TaskSchema, modality: Any, query: PairItem, items: list[PairItem]) -> dict[str, Any]:
    sims = [0.9 - 0.1 * n for n in range(len(items))]
    return query_task(
        schema,
        modality=modality,
        query=query,
        candidates=items,
        similarities=sims,
        model_version="v1",
        round_number=1,
    )


def made(client: LabelStudio, name: str, tasks: Sequence[dict[str, Any]], title: str) -> MadeProject:
    return create_project(client, TEMPLATES[name], f"{title}: {name}", TEMPLATES[name].example_labels, tasks)


class Asked:
    """A task of a pairing project, and what is read of it the way the sync reads."""

    def __init__(self, client: LabelStudio, project_id: int, task_id: int, schema: TaskSchema) -> None:
        self.client, self.project_id, self.task_id, self.schema = client, project_id, task_id, schema

    def answer(self, choice: str, written: str | None = None, client: LabelStudio | None = None) -> int:
        made = (client or self.client).create_annotation(
            self.task_id, answer_regions(self.schema, choice, written=written)
        )
        return int(made["id"])

    def read(self) -> PairAnswer:
        snapshot = self.client.tasks_with_annotations(self.project_id, [self.task_id])[self.task_id]
        assert snapshot.annotations is not None
        return read_pair_answer(self.schema, snapshot.data, snapshot.annotations)

    def essence(self) -> tuple[str, str | None, str | None]:
        found = self.read()
        return found.kind, " ".join(found.partner_ids) or None, found.text


# Through the API ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRING)
def test_every_kind_of_answer_to_a_sample_is_read_back(client: LabelStudio, name: str) -> None:
    schema = TEMPLATES[name].schema(())
    project = made(client, name, TEMPLATES[name].sample_tasks(), "Read back")
    assert len(project.task_ids) == len(TEMPLATES[name].sample_tasks())
    first, second, third, fourth = (Asked(client, project.project.id, i, schema) for i in project.task_ids)
    query = first.read().query
    assert first.essence() == ("open", None, None)
    picked = first.answer(query.candidate_ids[2])
    assert first.essence() == ("pick", query.candidate_ids[2], None) and first.read().rank == 2
    client.update_annotation(picked, result=answer_regions(schema, NONE))
    assert first.essence() == ("none", None, None)
    second.answer(NONE, "a caption of my own")
    may_write = second.read().query.modality == "image"
    assert second.essence() == (("written", None, "a caption of my own") if may_write else ("none", None, None))
    third.answer(UNSURE)
    assert third.essence() == ("unsure", None, None)
    client.skip(fourth.task_id)
    assert fourth.essence() == ("skipped", None, None)
    client.delete_annotation(picked)
    assert first.essence() == ("open", None, None)
    assert first.read().query == query


def test_several_annotators_and_ground_truth(
    client: LabelStudio, label_studio: LocalLabelStudio, annotators: Any
) -> None:
    people: list[Account] = annotators(2)
    schema = TEMPLATES["image_text_pairing"].schema(())
    project = made(client, "image_text_pairing", [caption_query(schema)], "Several")
    [task_id] = project.task_ids
    asked = Asked(client, project.project.id, task_id, schema)
    own = asked.answer("red")
    asked.answer("blue", client=LabelStudio(label_studio.url, people[0].token))
    assert asked.essence() == ("tie", None, None)
    asked.answer("blue", client=LabelStudio(label_studio.url, people[1].token))
    found = asked.read()
    assert (found.kind, found.partner_ids, len(found.annotators)) == ("pick", ("blue",), 2)
    client.update_annotation(own, ground_truth=True)
    assert asked.essence() == ("pick", "red", None) and asked.read().from_ground_truth


@pytest.mark.parametrize("name", GRADED)
def test_grades_are_read_back_by_the_present_loop(client: LabelStudio, name: str) -> None:
    schema = TEMPLATES[name].schema(())
    project = made(client, name, TEMPLATES[name].sample_tasks(), "Read back")
    for task_id, choice in zip(project.task_ids, schema.choices, strict=False):
        client.submit(task_id, schema, [choice])
    found = client.tasks_with_annotations(project.project.id, project.task_ids)
    labels = [
        resolve_label([read_answer(schema, a) for a in found[i].annotations or ()], multi_label=False).choices
        for i in project.task_ids[: len(schema.choices)]
    ]
    assert labels == [(choice,) for choice in schema.choices]


def test_a_batch_of_queries_is_imported_at_once_and_kept_as_it_was_sent(client: LabelStudio) -> None:
    schema = TEMPLATES["caption_to_images"].schema(())
    tasks = [caption_query(schema, number=n) for n in range(40)]
    project = made(client, "caption_to_images", tasks, "Batch")
    stored = client.tasks_by_id(project.project.id, project.task_ids)
    assert [stored[i].data for i in project.task_ids] == tasks


@pytest.mark.parametrize("name", PAIRING)
def test_pairing_tasks_are_served_in_the_published_order(client: LabelStudio, name: str) -> None:
    template = TEMPLATES[name]
    project = made(client, name, template.sample_tasks(), "Order")
    queue = project.task_ids[::-1]
    schema = template.schema(())
    rows = [queue_row(task_id, rank, len(queue), "v1", schema) for rank, task_id in enumerate(queue)]
    check_rows(template.config, rows)
    client.import_predictions(project.project.id, rows)
    client.set_model_version(project.project.id, "v1")
    client.update_project(project.project.id, sampling=SAMPLING)
    served = []
    while (task := client.next_task(project.project.id)) is not None:
        served.append(task.id)
        client.create_annotation(task.id, answer_regions(schema, UNSURE))
    assert served == list(queue)


# In the browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(label_studio: LocalLabelStudio) -> Iterator[Page]:
    with signed_in(label_studio) as page:
        page.set_viewport_size({"width": 1280, "height": 800})
        page.set_default_timeout(15_000)
        yield page


class Form:
    """The form of one task on the screen."""

    def __init__(self, page: Page, server: LocalLabelStudio, project: MadeProject, number: int = 0) -> None:
        self.page = page
        task_id = project.task_ids[number]
        with page.expect_response(lambda r: f"/api/tasks/{task_id}" in r.url and r.request.method == "GET"):
            page.goto(f"{server.url}/projects/{project.project.id}/data?task={task_id}")
        self.options.first.wait_for()
        # The form is drawn before the answer is put into it.
        page.wait_for_timeout(700)

    @property
    def options(self) -> Locator:
        return self.page.locator(".lsf-choice")

    @property
    def box(self) -> Locator:
        return self.page.locator("textarea")

    def option(self, value: str) -> Locator:
        return self.options.filter(has=self.page.locator(f"input[name='{value}']"))

    def ticked(self) -> list[str]:
        marks = self.page.locator(".lsf-choice input").evaluate_all("all => all.map(one => one.checked && one.name)")
        return [name for name in marks if name]

    def send(self) -> None:
        """Press Submit, or Update where there is an answer already."""
        button = (
            self.page.locator("button")
            .filter(has_text="Submit")
            .or_(self.page.locator("button").filter(has_text="Update"))
        )
        with self.page.expect_response(lambda r: "annotations" in r.url and r.request.method in ("POST", "PATCH")):
            button.last.click()


@pytest.fixture
def form(page: Page, label_studio: LocalLabelStudio) -> Any:
    return lambda project, number=0: Form(page, label_studio, project, number)


def test_thumbnails_are_shown_although_label_studio_empties_their_src(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["caption_to_images"].schema(())
    task = caption_query(schema)
    task["candidates"].insert(0, {"value": "in a tag", "html": f'<img id="tag" src="{picture("red")}"/>'})
    shown = form(made(client, "caption_to_images", [task], "Thumbnails"))
    assert shown.page.locator("#tag").get_attribute("src") is None
    thumbs = shown.page.locator(".al-thumb")
    assert thumbs.count() == len(COLOURS)
    for place in range(len(COLOURS)):
        box = thumbs.nth(place).bounding_box()
        assert box is not None and box["width"] >= 100 and box["height"] >= 100
        assert "data:image/webp" in thumbs.nth(place).evaluate("one => getComputedStyle(one).backgroundImage")


def test_one_form_asks_in_both_directions(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["image_text_pairing"].schema(())
    project = made(client, "image_text_pairing", [image_query(schema), caption_query(schema)], "Both ways")
    of_image, of_caption = "Which caption belongs to this image?", "Which image belongs to this caption?"
    shown = form(project, 0)
    page = shown.page
    page.locator(".al-image img").wait_for()
    assert not page.locator(".al-text").is_visible()
    assert page.get_by_text(of_image).is_visible() and not page.get_by_text(of_caption).is_visible()
    shown.option("purple").click()
    shown.send()
    shown = form(project, 1)
    page.locator(".al-text").wait_for()
    assert page.locator(".al-image img").count() == 0
    assert page.get_by_text(of_caption).is_visible() and not page.get_by_text(of_image).is_visible()
    shown.option("cyan").locator(".al-thumb").click()
    shown.option(NONE).click()
    assert not shown.box.is_visible()
    shown.option("blue").locator(".al-thumb").click()
    shown.send()
    answers = [Asked(client, project.project.id, i, schema).essence() for i in project.task_ids]
    assert answers == [("pick", "purple", None), ("pick", "blue", None)]


@pytest.mark.parametrize("name", ["image_to_captions", "image_text_pairing"])
def test_caption_box_comes_with_none_and_its_words_count_only_then(client: LabelStudio, form: Any, name: str) -> None:
    schema = TEMPLATES[name].schema(())
    project = made(client, name, [image_query(schema)], "Box")
    asked = Asked(client, project.project.id, project.task_ids[0], schema)
    shown = form(project)
    assert not shown.box.is_visible()
    shown.option(NONE).click()
    shown.box.fill("typed, and never entered")
    shown.option("green").click()
    assert not shown.box.is_visible()
    shown.send()
    assert asked.essence() == ("pick", "green", None)
    shown = form(project)
    assert shown.ticked() == ["green"]
    shown.option(NONE).click()
    shown.box.fill("the sea")
    shown.send()
    assert asked.essence() == ("written", None, "the sea")
    shown = form(project)
    assert shown.ticked() == [NONE]
    shown.option(UNSURE).click()
    shown.send()
    assert asked.essence() == ("unsure", None, None)


def test_several_images_are_ticked_where_several_may_belong(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["many_to_many_pairing"].schema(())
    project = made(client, "many_to_many_pairing", [caption_query(schema)], "Several belong")
    asked = Asked(client, project.project.id, project.task_ids[0], schema)
    shown = form(project)
    for colour in ("cyan", "blue"):
        shown.option(colour).locator(".al-thumb").click()
    shown.send()
    assert asked.essence() == ("pick", "cyan blue", None)
    shown = form(project)
    assert sorted(shown.ticked()) == ["blue", "cyan"]
    shown.option("cyan").locator(".al-thumb").click()
    shown.send()
    assert asked.essence() == ("pick", "blue", None)


def test_captions_are_words_and_never_markup_or_fields(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["image_to_captions"].schema(())
    shown = form(made(client, "image_to_captions", [image_query(schema)], "Words"))
    captions = shown.page.locator(".al-caption")
    assert sorted(captions.all_inner_texts())[:2] == ["$image", "<b>red</b> & $text"]
    assert captions.locator("b").count() == 0


def test_odd_ids_come_back_as_they_are(client: LabelStudio, form: Any) -> None:
    ids = ["a$text", "$image", 'x > y & "z"', "ü/é 7.jpg"]
    schema = TEMPLATES["image_to_captions"].schema(())
    tasks = [image_query(schema, ids, n) for n in range(len(ids))]
    project = made(client, "image_to_captions", tasks, "Odd ids")
    for number, item in enumerate(ids):
        place = [option["value"] for option in tasks[number]["candidates"]].index(item)
        shown = form(project, number)
        shown.options.nth(place).click()
        shown.send()
        asked = Asked(client, project.project.id, project.task_ids[number], schema)
        assert asked.essence() == ("pick", item, None)


def test_keys_pick_by_place_and_nine_and_zero_are_the_exits(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["caption_to_images"].schema(())
    task = caption_query(schema, COLOURS[:5])
    shown = form(made(client, "caption_to_images", [task], "Keys"))
    order = [option["value"] for option in task["candidates"]]
    for key, value in {"3": order[2], "9": NONE, "0": UNSURE, "5": order[4]}.items():
        shown.page.keyboard.press(key)
        shown.page.wait_for_timeout(200)
        assert shown.ticked() == [value]


def test_a_pairing_task_cannot_be_sent_without_an_answer(client: LabelStudio, form: Any) -> None:
    schema = TEMPLATES["caption_to_images"].schema(())
    project = made(client, "caption_to_images", [caption_query(schema)], "Required")
    shown = form(project)
    shown.page.locator("button").filter(has_text="Submit").last.click()
    shown.page.get_by_text("Pick one, or None of these, or Cannot tell").wait_for()
    assert Asked(client, project.project.id, project.task_ids[0], schema).read().kind == "open"


def test_reason_is_asked_for_when_a_text_partly_matches(client: LabelStudio, form: Any) -> None:
    template = TEMPLATES["image_text_alignment"]
    project = made(client, template.name, template.sample_tasks(), "Reason")
    shown = form(project)
    shown.option("match").click()
    assert not shown.box.is_visible()
    shown.option("partly").click()
    shown.box.fill("there are no straws")
    shown.send()
    [annotation] = client.task(project.task_ids[0]).annotations or ()
    assert read_answer(template.schema(()), annotation).choices == ("partly",)
    [why] = [region["value"] for region in annotation["result"] if region["from_name"] == "why"]
    assert why == {"text": ["there are no straws"]}


def test_grade_is_given_by_its_own_key(client: LabelStudio, form: Any) -> None:
    template = TEMPLATES["relevance_grading"]
    project = made(client, template.name, template.sample_tasks(), "Grade")
    shown = form(project)
    shown.page.keyboard.press("2")
    shown.page.wait_for_timeout(200)
    shown.send()
    [annotation] = client.task(project.task_ids[0]).annotations or ()
    assert read_answer(template.schema(()), annotation).choices == ("2",)


def test_classes_and_the_conflict_question_are_answered_apart(client: LabelStudio, form: Any) -> None:
    template = TEMPLATES["cross_modal_retrieval"]
    labels = template.example_labels
    project = made(client, template.name, template.sample_tasks(), "Conflict")
    conflict = TaskSchema.from_label_config(project.project.label_config, "conflict")
    shown = form(project)
    shown.option("Food").click()
    shown.option("Nature").click()
    shown.option("partly").click()
    shown.send()
    client.submit(project.task_ids[1], template.schema(labels), ["Animal"])
    [both], [one] = (client.task(i).annotations or () for i in project.task_ids[:2])
    assert read_answer(template.schema(labels), both).choices == ("Food", "Nature")
    assert read_answer(conflict, both).choices == ("partly",)
    assert read_answer(template.schema(labels), one).choices == ("Animal",)
    assert read_answer(conflict, one).choices is None


@pytest.mark.parametrize("name", [*PAIRING, *GRADED, "cross_modal_retrieval"])
def test_samples_fit_on_one_screen(client: LabelStudio, form: Any, name: str) -> None:
    template = TEMPLATES[name]
    project = made(client, name, template.sample_tasks(), "Screen")
    for number in range(len(template.directions) or 1):
        shown = form(project, number)
        last = shown.options.last.bounding_box()
        assert last is not None and last["y"] + last["height"] < 750
        if len(template.directions) != 1:  # the one-way forms look like one of the two of image_text_pairing
            keep_picture(shown.page, f"template_{name}_{number}")
