"""A project from a template in one call: made, filled, attached. Safe to run twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import ConfigurationError, TaskTemplateInvalid
from backend.labelstudio import task_templates
from backend.labelstudio.task_templates import TaskTemplate, templates_in
from backend.rounds.connecting import attach_project, set_options
from backend.rounds.options import change_options
from backend.rounds.services import Services
from backend.store import projects
from backend.store.tables import Project

# What a template calls its learner -> the option of the project.
LEARNERS = {"late_fusion": "late_fusion", "alignment": "alignment", "retrieval": "two_branch"}
TEMPLATES = Path(__file__).parents[2] / "tasks_templates"


def create_project(
    services: Services,
    template: str,
    *,
    tasks_file: Path | None = None,
    labels_file: Path | None = None,
    title: str = "",
    options: Mapping[str, Any] | None = None,
) -> Project:
    """Create a project from a template, import tasks, attach it.

    Parameters
    ----------
    template
        Name of a folder in `tasks_templates`, or a path to one.
    tasks_file
        JSON list of tasks; default: the template's samples.
    labels_file
        One label a line; default: the template's examples.
    title
        Default: the template's title. A project of this title made before is used again.
    options
        Options of the project, checked before anything is made; None: not given. Of a project that was made before
        only these are changed: an admin may have changed the others.

    Raises
    ------
    ConfigurationError, TaskTemplateInvalid, ForeignPredictions, LabelStudioError
    """
    kind = TaskTemplate.load(find_template(template))
    labels = _read_labels(labels_file) if labels_file else list(kind.example_labels)
    tasks = _read_tasks(tasks_file) if tasks_file else _samples(kind)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    chosen = change_options({}, template_options(kind) | given, kind.schema(labels))
    if kind.strategies and chosen.strategy not in kind.strategies:
        raise TaskTemplateInvalid(
            f"strategy = {chosen.strategy!r} is not for {kind.name}. Use one of: {', '.join(kind.strategies)}"
        )
    made = task_templates.create_project(services.label_studio, kind, title or kind.title, labels, tasks)
    if projects.find(services.store, made.project.id) is None:
        # Before it is attached: which of several controls is learnt decides whether the label config suits at all.
        projects.remember(
            services.store,
            made.project.id,
            label_config=made.project.label_config,
            options=chosen.model_dump(),
            state="new",
        )
    attached = attach_project(services, made.project.id)
    set_options(services, attached.id, given, why="creating the project")
    return projects.get(services.store, attached.id)


def _samples(template: TaskTemplate) -> list[dict[str, Any]]:
    # The tasks of a pairing project are made by its rounds; the samples only show what they look like.
    return [] if template.answers == "candidates" else template.sample_tasks()


def template_options(template: TaskTemplate) -> dict[str, Any]:
    """Options that a project of this template starts with."""
    chosen: dict[str, Any] = {"control": template.control}
    if template.learner in LEARNERS:
        chosen["learner"] = LEARNERS[template.learner]
    if template.matching:
        chosen["matching"] = list(template.matching)
    return chosen


def find_template(name: str) -> Path:
    """The folder of a template, by path or by name.

    Raises
    ------
    TaskTemplateInvalid
        With the names there are.
    """
    for folder in (Path(name), TEMPLATES / name):
        if (folder / "template.yaml").is_file():
            return folder
    raise TaskTemplateInvalid(f"template = {name!r} does not exist. Use one of: {', '.join(templates_in(TEMPLATES))}")


def _read_labels(path: Path) -> list[str]:
    labels = [line.strip() for line in _read(path).splitlines() if line.strip()]
    if not labels:
        raise ConfigurationError(f"labels = {path}: the file holds no label. Write one a line.")
    return labels


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"tasks = {path}: not JSON ({error}). Give a list of task objects.") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ConfigurationError(f'tasks = {path}: not a list of objects such as {{"image": "...", "text": "..."}}.')
    return tasks


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}. Give the path of a file.") from None
