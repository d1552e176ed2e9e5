"""The templates that come with the project, and what is wrong with a broken one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import LabelConfigUnsupported, TaskTemplateInvalid
from backend.labelstudio.schema import REASON_KEY, TaskSchema
from backend.labelstudio.task_templates import TaskTemplate, templates_in

FOLDER = Path(__file__).parents[2] / "tasks_templates"
NAMES = templates_in(FOLDER)


def test_there_is_one_template_for_each_kind_of_answer() -> None:
    kinds = {TaskTemplate.load(FOLDER / name).multi_label for name in NAMES}
    assert kinds == {True, False}


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
        assert schema.image_of(task) and schema.text_of(task)
        assert REASON_KEY not in task
    assert f'"${REASON_KEY}"' in xml and template.instructions.strip()


@pytest.mark.parametrize("name", NAMES)
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
    assert TaskSchema.from_label_config(xml).choices == tuple(labels)
    assert xml.count("hotkey=") == min(len(labels), 9)


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
    ],
)
def test_broken_template_names_the_file_and_the_fault(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("config.xml", "template.yaml"):
        shutil.copy(FOLDER / "image_text_classification" / name, folder)
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
