"""Projects made from the folders below `tasks_templates`: a template is data, not code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args
from xml.sax.saxutils import quoteattr

import yaml  # type: ignore[import-untyped]

from backend.errors import LabelConfigUnsupported, TaskTemplateInvalid
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.records import ProjectInfo
from backend.labelstudio.schema import TaskSchema

_CHOICES = "{{choices}}"
_HOTKEYS = "123456789"
_LEARNERS = ("late_fusion", "alignment", "retrieval", "pairing")

Answers = Literal["open", "fixed", "candidates"]


@dataclass(frozen=True)
class TaskTemplate:
    """A folder with `config.xml`, `template.yaml` and, if it has samples, `tasks.json`.

    Attributes
    ----------
    learner : what learns from the answers: late_fusion, alignment, retrieval or pairing
    strategies : the allowed ones; empty means all that suit the label config
    answers : "open" when each project has answers of its own (`{{choices}}` in config.xml); "fixed" when they
        belong to the template; "candidates" when each task lists its own
    matching : where the learner is alignment, the answers that say the text fits the image
    directions : of a pairing template, what a question may show: image, text or both
    example_labels : answers of a project that names none; with fixed answers all of them
    """

    name: str
    title: str
    description: str
    modalities: tuple[str, ...]
    keys: Mapping[str, str]
    control: str
    multi_label: bool
    learner: str
    strategies: tuple[str, ...]
    example_labels: tuple[str, ...]
    instructions: str
    config: str
    folder: Path
    answers: Answers = "open"
    directions: tuple[str, ...] = ()
    matching: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> TaskTemplate:
        """Read a template.

        Raises
        ------
        TaskTemplateInvalid
            Naming the file or field that is missing or does not fit the label config.
        """
        config = _text(folder / "config.xml")
        try:
            fields = yaml.safe_load(_text(folder / "template.yaml"))
        except yaml.YAMLError as error:
            raise TaskTemplateInvalid(f"{folder / 'template.yaml'} is not YAML: {error}") from None
        if not isinstance(fields, dict):
            raise TaskTemplateInvalid(f"{folder / 'template.yaml'} must hold fields such as `title: ...`")
        answers = _kind_of_answers(folder, fields, config)
        allowed = fields.get("strategies", "all")
        try:
            template = cls(
                name=folder.name,
                title=str(fields["title"]),
                description=str(fields["description"]),
                modalities=tuple(fields["modalities"]),
                keys=dict(fields["keys"]),
                control=str(fields["control"]),
                multi_label=bool(fields["multi_label"]),
                learner=str(fields["learner"]),
                strategies=() if allowed == "all" else tuple(allowed),
                example_labels=tuple(map(str, fields["example_labels"])),
                instructions=str(fields["instructions"]),
                config=config,
                folder=folder,
                answers=answers,
                directions=tuple(fields["directions"]) if answers == "candidates" else (),
                matching=tuple(map(str, fields["matching"])) if fields["learner"] == "alignment" else (),
            )
        except KeyError as error:
            raise TaskTemplateInvalid(f"{folder / 'template.yaml'} lacks the field {error}") from None
        template._check()
        return template

    def label_config(self, labels: Sequence[str]) -> str:
        """The label config with these answers; the first nine get the keys 1 to 9.

        Raises
        ------
        LabelConfigUnsupported
            Too few answers, an empty one, or one twice.
        TaskTemplateInvalid
            Other answers than those that belong to the template.
        """
        if self.answers != "open":
            return self._fixed_config(labels)
        if any(not label.strip() for label in labels):
            raise LabelConfigUnsupported("An answer is empty: give each a name")
        tags = [
            f"<Choice value={quoteattr(label)}" + (f' hotkey="{_HOTKEYS[n]}"' if n < len(_HOTKEYS) else "") + "/>"
            for n, label in enumerate(labels)
        ]
        xml = self.config.replace(_CHOICES, "\n        ".join(tags))
        TaskSchema.from_label_config(xml, self.control)
        return xml

    def _fixed_config(self, labels: Sequence[str]) -> str:
        if labels and tuple(labels) != self.example_labels:
            known = ", ".join(self.example_labels) or "those that each task lists"
            raise TaskTemplateInvalid(
                f"{self.name} takes no other answers than {known}: give none, or copy the template and change"
                " config.xml"
            )
        return self.config

    def schema(self, labels: Sequence[str]) -> TaskSchema:
        """The schema that a project with these answers has."""
        return TaskSchema.from_label_config(self.label_config(labels), self.control)

    def sample_tasks(self) -> list[dict[str, Any]]:
        """The tasks of `tasks.json`; none when there is no such file."""
        path = self.folder / "tasks.json"
        return list(json.loads(_text(path))) if path.exists() else []

    def _check(self) -> None:
        about = self.folder / "template.yaml"
        if self.learner not in _LEARNERS:
            raise TaskTemplateInvalid(f"{about} has learner: {self.learner!r}. Use one of {', '.join(_LEARNERS)}")
        if (self.learner == "pairing") != (self.answers == "candidates"):
            raise TaskTemplateInvalid(
                f"{about} has learner: {self.learner} and answers: {self.answers}; pairing learns from candidates"
            )
        schema = self.schema(self.example_labels)
        stated = (
            self.modalities, self.keys.get("image"), self.keys.get("text"), self.multi_label, self.directions
        )  # fmt: skip
        found = (schema.modalities, schema.image_key, schema.text_key, schema.multi_label, schema.directions)
        if stated != found:
            raise TaskTemplateInvalid(
                f"{about} says (modalities, image key, text key, multi_label, directions) = {stated},"
                f" config.xml says {found}: make them agree"
            )
        if unknown := set(self.matching) - set(self.example_labels):
            raise TaskTemplateInvalid(
                f"{about} has matching: {', '.join(sorted(unknown))}. Use some of {', '.join(self.example_labels)}"
            )
        if self.answers == "fixed" and schema.choices != self.example_labels:
            raise TaskTemplateInvalid(
                f"{about} has example_labels: {', '.join(self.example_labels)}, config.xml has"
                f" {', '.join(schema.choices)}: make them agree"
            )


@dataclass(frozen=True)
class MadeProject:
    """A project and what was done to get it: made or found, and the tasks imported now."""

    project: ProjectInfo
    created: bool
    task_ids: tuple[int, ...]


def templates_in(folder: Path) -> list[str]:
    """Names of the templates in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/template.yaml"))


def create_project(
    client: LabelStudio,
    template: TaskTemplate,
    title: str,
    labels: Sequence[str],
    tasks: Sequence[Mapping[str, Any]] = (),
) -> MadeProject:
    """Make a project from a template, or find the one an earlier call with this title made.

    Tasks are imported only into a project that has none, so the call can be repeated after a failure.

    Raises
    ------
    TaskTemplateInvalid
        A project of this title exists and has another label config, or was not made from this template.
    """
    config = template.label_config(labels)
    mark = f"Made from the template {template.name}."
    found = next((project for project in client.projects() if project.title == title), None)
    if found is not None:
        if mark not in found.description:
            raise TaskTemplateInvalid(
                f"Project {found.id} is called {title!r} and was not made from {template.name}: choose another title"
            )
        if TaskSchema.from_label_config(found.label_config, template.control) != template.schema(labels):
            raise TaskTemplateInvalid(
                f"Project {found.id} is called {title!r} and has other answers: choose another title, or change"
                " its label config in Label Studio"
            )
    project = found or client.create_project(
        title,
        config,
        f"{template.description} {mark}",
        expert_instruction=template.instructions.strip().replace("\n", "<br>"),
        show_instruction=True,
    )
    ids = client.import_tasks(project.id, tasks) if tasks and project.task_number == 0 else []
    return MadeProject(client.project(project.id), found is None, tuple(ids))


def _kind_of_answers(folder: Path, fields: Mapping[str, Any], config: str) -> Answers:
    answers = fields.get("answers", "open")
    if answers not in get_args(Answers):
        raise TaskTemplateInvalid(
            f"{folder / 'template.yaml'} has answers: {answers!r}. Use one of {', '.join(get_args(Answers))}"
        )
    if answers == "open" and _CHOICES not in config:
        raise TaskTemplateInvalid(f"{folder / 'config.xml'} must hold {_CHOICES} where the answers go")
    if answers != "open" and _CHOICES in config:
        raise TaskTemplateInvalid(
            f"{folder / 'config.xml'} holds {_CHOICES}, template.yaml says answers: {answers}. Remove one of them"
        )
    return cast(Answers, answers)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TaskTemplateInvalid(f"{path} is missing") from None
