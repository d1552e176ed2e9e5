"""The templates that come with the project, and what is wrong with a broken one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import LabelConfigUnsupported, TaskTemplateInvalid
from backend.labelstudio.pair_answers import read_query
from backend.labelstudio.pair_tasks import NONE, UNSURE
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from backend.labelstudio.task_templates import TaskTemplate, templates_in

FOLDER = Path(__file__).parents[2] / "tasks_templates"
NAMES = templates_in(FOLDER)
OPEN = [name for name in NAMES if TaskTemplate.load(FOLDER / name).answers == "open"]
PAIRING = [name for name in NAMES if TaskTemplate.load(FOLDER / name).answers == "candidates"]


def test_there_is_one_template_for_each_kind_of_answer_and_each_learner() -> None:
    templates = [TaskTemplate.load(FOLDER / name) for name in NAMES]
    assert {template.multi_label for template in templates} == {True, False}
    assert {template.answers for template in templates} == {"open", "fixed", "candidates"}
    assert {template.learner for template in templates} == {"late_fusion", "alignment", "retrieval", "pairing"}
    directions = {template.directions for template in templates if template.learner == "pairing"}
    assert directions == {("image",), ("text",), ("image", "text")}


@pytest.mark.parametrize("name", NAMES)
def test_template_agrees_with_its_label_config_and_samples(name: str) -> None:
    template = TaskTemplate.load(FOLDER / name)
    xml = template.label_config(template.example_labels)
    schema = template.schema(template.example_labels)
    assert schema.choices == template.example_labels
    interface = LabelInterface(xml)
    interface.validate()
    samples = template.sample_tasks()
    assert samples
    for task in samples:
        shown = {"image": schema.image_of(task), "text": schema.text_of(task)}
        asked = (read_query(task).modality,) if schema.kind == "pairing" else schema.modalities
        assert tuple(name for name, content in shown.items() if content) == asked
        assert REASON_KEY not in task
    assert f'"${REASON_KEY}"' in xml and template.instructions.strip()


@pytest.mark.parametrize("name", PAIRING)
def test_samples_are_queries_as_rounds_make_them(name: str) -> None:
    template = TaskTemplate.load(FOLDER / name)
    queries = [read_query(task) for task in template.sample_tasks()]
    assert {query.modality for query in queries} == set(template.directions)
    assert len({query.key for query in queries}) == len(queries)
    for task, query in zip(template.sample_tasks(), queries, strict=True):
        listed = [option["value"] for option in task["candidates"]]
        assert sorted(listed) == sorted([*query.candidate_ids, NONE, UNSURE]) and listed[-2:] == [NONE, UNSURE]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OPEN])
def test_answers_that_belong_to_the_template_cannot_be_replaced(name: str) -> None:
    template = TaskTemplate.load(FOLDER / name)
    assert template.label_config(()) == template.label_config(template.example_labels) == template.config
    with pytest.raises(TaskTemplateInvalid, match="takes no other answers than"):
        template.label_config(["x", "y"])


@pytest.mark.parametrize("name", OPEN)
@given(
    labels=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
        min_size=2,
        max_size=15,
        unique=True,
    )
)
def test_answers_may_have_any_words(name: str, labels: list[str]) -> None:
    template = TaskTemplate.load(FOLDER / name)
    xml = template.label_config(labels)
    assert TaskSchema.from_label_config(xml, template.control).choices == tuple(labels)
    assert xml.count("hotkey=") == min(len(labels), 9)


def test_conflict_question_is_read_as_a_control_of_its_own() -> None:
    template = TaskTemplate.load(FOLDER / "cross_modal_retrieval")
    schema = TaskSchema.from_label_config(template.label_config(["a", "b"]), "conflict")
    assert (schema.choices, schema.multi_label) == (("yes", "partly", "no"), False)


@pytest.mark.parametrize("labels", [[], ["a", " "], ["a", "a"]])
def test_unusable_answers_are_refused(labels: list[str]) -> None:
    template = TaskTemplate.load(FOLDER / "image_text_classification")
    with pytest.raises(LabelConfigUnsupported):
        template.label_config(labels)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("config.xml", "{{choices}}", "", "{{choices}}"),
        ("config.xml", "$image", "$picture", "make them agree"),
        ("template.yaml", "multi_label: false", "multi_label: true", "make them agree"),
        ("template.yaml", "learner:", "learner_was:", "lacks the field 'learner'"),
        ("template.yaml", "title: ", "title: [", "is not YAML"),
        ("template.yaml", "learner: late_fusion", "learner: fusion", "Use one of late_fusion, alignment"),
        ("template.yaml", "learner: late_fusion", "learner: pairing", "pairing learns from candidates"),
        ("template.yaml", "title: ", "answers: free\ntitle: ", "Use one of open, fixed, candidates"),
        ("template.yaml", "title: ", "answers: fixed\ntitle: ", "Remove one of them"),
    ],
)
def test_broken_template_names_the_file_and_the_fault(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    refuse_broken_copy(tmp_path, "image_text_classification", file, old, new, said)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "said"),
    [
        (
            "image_text_pairing",
            "template.yaml",
            "directions: [image, text]",
            "directions: [image]",
            "make them agree",
        ),
        ("image_text_pairing", "template.yaml", "directions:", "direction:", "lacks the field 'directions'"),
        ("image_text_pairing", "config.xml", "$text", "$words", "make them agree"),
        ("image_text_alignment", "template.yaml", "matching:", "fitting:", "lacks the field 'matching'"),
        ("image_text_alignment", "template.yaml", "matching: [match]", "matching: [yes]", "has matching: True. Use"),
        ("relevance_grading", "template.yaml", '"3", "2"', '"2", "3"', "make them agree"),
    ],
)
def test_broken_template_of_other_kinds_is_refused_too(
    tmp_path: Path, name: str, file: str, old: str, new: str, said: str
) -> None:
    refuse_broken_copy(tmp_path, name, file, old, new, said)


def refuse_broken_copy(tmp_path: Path, template: str, file: str, old: str, new: str, said: str) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("config.xml", "template.yaml"):
        shutil.copy(FOLDER / template / name, folder)
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(TaskTemplateInvalid) as refused:
        TaskTemplate.load(folder)
    assert said in str(refused.value) and "broken" in str(refused.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskTemplateInvalid, match=r"config.xml is missing"):
        TaskTemplate.load(tmp_path)
