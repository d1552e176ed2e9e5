"""The label config changes while a project is being labelled: answers, head, options and the next round follow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backend.errors import LabelModelUnsuited, LabelStudioUnreachable
from backend.labelstudio.records import ProjectInfo, TaskSnapshot
from backend.labelstudio.schema import TaskSchema
from backend.rounds import label_models
from backend.rounds.answering import Answerer
from backend.rounds.embedding import embed_chunk
from backend.rounds.fitting import fit_head, load_arrays
from backend.rounds.models import FrozenSpace
from backend.rounds.options import change_options, suited_options
from backend.rounds.services import Services, options_of
from backend.rounds.sync import sync_project
from backend.settings import Settings
from backend.store import projects, rounds
from backend.store.tables import Task

MOMENT = "2026-01-01T00:00:00Z"


def config(*choices: str, choice: str = "single") -> str:
    listed = "".join(f"<Choice value='{name}'/>" for name in choices)
    return (
        "<View><Text name='words' value='$title'/>"
        f"<Choices name='tone' toName='words' choice='{choice}'>{listed}</Choices></View>"
    )


def graded(*choices: str) -> str:
    """The same about an image and a text."""
    return config(*choices).replace("<View>", "<View><Image name='picture' value='$photo'/>")


MANY_TO_MANY = """<View><Image name="image" value="$image"/><Text name="text" value="$text"/>
<Choices name="pick" toName="image" choice="multiple" value="$candidates"/></View>"""
ANSWERS = {1: "A", 2: "B", 3: "B", 4: None}
NOBODY: dict[str, Any] = {"was_cancelled": False, "completed_by": 1, "ground_truth": False}


class LabelStudioOf:
    """One project as Label Studio tells it; its tasks cannot be read while it is away."""

    def __init__(self, label_config: str) -> None:
        self.label_config, self.away = label_config, False

    def project(self, project_id: int) -> ProjectInfo:
        answers = sum(answer is not None for answer in ANSWERS.values())
        told = {
            "id": project_id,
            "label_config": self.label_config,
            "task_number": len(ANSWERS),
            "created_at": MOMENT,
        }
        return ProjectInfo.read({**told, "total_annotations_number": answers})

    authorization = None

    def server_time(self) -> datetime:
        return datetime.now(UTC)

    def iter_tasks(self, project_id: int) -> Iterator[TaskSnapshot]:
        if self.away:
            raise LabelStudioUnreachable("away")
        return iter([snapshot(task_id) for task_id in ANSWERS])

    def annotated_tasks(self, project_id: int) -> list[TaskSnapshot]:
        return [snapshot(task_id) for task_id, answer in ANSWERS.items() if answer]

    def changed_tasks(self, project_id: int, since: datetime) -> list[TaskSnapshot]:
        return []

    def tasks_with_annotations(self, project_id: int, task_ids: set[int]) -> dict[int, TaskSnapshot]:
        return {task_id: snapshot(task_id) for task_id in task_ids}


def snapshot(task_id: int) -> TaskSnapshot:
    answer = ANSWERS[task_id]
    value = {"type": "choices", "from_name": "tone", "to_name": "words", "value": {"choices": [answer]}}
    annotation = {"id": task_id, "result": [value], "updated_at": MOMENT, "created_at": MOMENT, **NOBODY}
    data = {"title": f"words {task_id}"}
    annotations = [annotation] if answer else []
    return TaskSnapshot.read({"id": task_id, "data": data, "updated_at": MOMENT, "annotations": annotations})


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(Settings(data_dir=tmp_path, encoder="import:tests.live.toy_encoder:make"))


def read_once(services: Services, told: LabelStudioOf, **options: Any) -> None:
    """Have the services meet this Label Studio, and read its project for the first time."""
    services.__dict__["label_studio"] = told
    chosen = change_options({}, options, TaskSchema.from_label_config(told.label_config)).model_dump()
    projects.remember(services.store, 1, state="attached", label_config=told.label_config, options=chosen)
    sync_project(services, 1)


def connected(services: Services, label_config: str, **options: Any) -> LabelStudioOf:
    """A project that was read once and has a queue."""
    told = LabelStudioOf(label_config)
    read_once(services, told, **options)
    projects.remember(services.store, 1, version="v1-auto")
    assert projects.get(services.store, 1).round_requested == ""
    return told


def labels(services: Services) -> dict[int, list[str]]:
    with services.store.reading() as session:
        rows = session.scalars(select(Task).where(Task.project_id == 1, Task.label_kind == "label"))
        return {row.task_id: row.label for row in rows}


def test_a_change_that_could_not_be_read_is_read_by_the_next_look(services: Services) -> None:
    told = connected(services, config("A", "B"))
    assert labels(services) == {1: ["A"], 2: ["B"], 3: ["B"]}
    told.label_config, told.away = config("A", "C"), True
    with pytest.raises(LabelStudioUnreachable):
        sync_project(services, 1)
    told.away = False
    sync_project(services, 1)
    assert labels(services) == {1: ["A"]}


def test_a_change_asks_for_a_round_and_a_change_of_layout_does_not(services: Services) -> None:
    told = connected(services, config("A", "B"))
    told.label_config = config("A", "B").replace("<View>", "<View className='wide'>")
    sync_project(services, 1)
    project = projects.get(services.store, 1)
    assert project.label_config == told.label_config and project.round_requested == ""
    told.label_config = config("B", "A")
    sync_project(services, 1)
    assert projects.get(services.store, 1).round_requested == "the label config changed"


def test_a_round_that_finds_a_change_itself_asks_for_no_other(services: Services) -> None:
    told = connected(services, config("A", "B"))
    told.label_config = config("B", "A")
    sync_project(services, 1, in_round=True)
    project = projects.get(services.store, 1)
    assert project.schema_hash == TaskSchema.from_label_config(told.label_config).config_hash
    assert project.round_requested == ""


@pytest.mark.parametrize(
    ("before", "options", "after", "strategy"),
    [
        (config("A", "B"), {"strategy": "badge", "batch_size": 7}, MANY_TO_MANY, "pair_likely"),
        (MANY_TO_MANY, {"batch_size": 7}, config("A", "B"), "auto"),
        (config("A", "B"), {"strategy": "dropquery", "batch_size": 7}, config("A", "B", choice="multiple"), "auto"),
        (config("A", "B"), {"strategy": "margin", "batch_size": 7}, config("A", "C"), "margin"),
    ],
)
def test_options_that_the_new_config_cannot_use_go_and_the_others_stay(
    services: Services, before: str, options: dict[str, Any], after: str, strategy: str
) -> None:
    chosen = change_options({}, options, TaskSchema.from_label_config(before)).model_dump()
    schema = TaskSchema.from_label_config(after)
    suited = suited_options(chosen, schema)
    assert (suited.strategy, suited.batch_size) == (strategy, 7)
    assert change_options(suited.model_dump(), {}, schema) == suited


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"strategy": "margin", "label_model": "one_coin", "opinions": 4}, {"strategy": "margin", "opinions": 4}),
        ({"strategy": "margin", "balance": "pcb"}, {"strategy": "margin"}),
        ({"strategy": "margin", "balance": "tail_first"}, {"strategy": "margin", "balance": "tail_first"}),
        ({"strategy": "dropquery", "balance": "pcb", "refresh_hours": 3}, {"refresh_hours": 3}),
    ],
)
def test_whatever_the_new_config_can_use_stays(options: dict[str, Any], kept: dict[str, Any]) -> None:
    chosen = change_options({}, options, TaskSchema.from_label_config(config("A", "B", "C"))).model_dump()
    several = TaskSchema.from_label_config(config("A", "B", "C", choice="multiple"))
    assert suited_options(chosen, several).model_dump(exclude_defaults=True) == kept


def test_a_package_that_is_missing_here_takes_no_option_along(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = change_options({}, {"label_model": "one_coin"}, TaskSchema.from_label_config(config("A", "B")))
    monkeypatch.setattr(label_models, "find_spec", lambda name: None)
    other = TaskSchema.from_label_config(config("A", "C"))
    assert suited_options(chosen.model_dump(), other) == chosen
    with pytest.raises(LabelModelUnsuited, match="pip install"):
        change_options(chosen.model_dump(), {}, other)


@pytest.mark.parametrize(
    ("answers", "learner"), [(("fits", "partly", "no"), "alignment"), (("match", "no"), "late_fusion")]
)
def test_a_learner_goes_with_the_answer_that_it_was_told_and_takes_no_strategy_along(
    answers: tuple[str, ...], learner: str
) -> None:
    told = {"learner": "alignment", "matching": ["fits"], "strategy": "margin"}
    chosen = change_options({}, told, TaskSchema.from_label_config(graded("fits", "no"))).model_dump()
    suited = suited_options(chosen, TaskSchema.from_label_config(graded(*answers)))
    assert (suited.learner, suited.strategy) == (learner, "margin")


def test_a_change_of_layout_leaves_even_options_that_have_become_unusable(services: Services) -> None:
    told = connected(services, graded("fits", "no"))
    before_matching = {**projects.get(services.store, 1).options, "learner": "alignment", "matching": []}
    projects.remember(services.store, 1, options=before_matching)
    told.label_config = graded("fits", "no").replace("<View>", "<View className='wide'>")
    sync_project(services, 1)
    assert projects.get(services.store, 1).options == before_matching


def test_a_project_that_turned_from_classes_to_pairs_is_served_as_one(services: Services) -> None:
    told = connected(services, config("A", "B"), strategy="badge", batch_size=7)
    told.label_config = MANY_TO_MANY
    sync_project(services, 1)
    options = options_of(projects.get(services.store, 1))
    assert (options.strategy, options.one_to_one, options.batch_size) == ("pair_likely", False, 7)


def test_a_head_answers_under_the_choices_it_was_trained_on_only(services: Services) -> None:
    connected(services, config("A", "B"), prelabel=True)
    assert embed_chunk(services, 1) == len(ANSWERS)
    old = TaskSchema.from_label_config(config("A", "B"))
    head = fit_head(load_arrays(services, 1, old), old, seed=0)
    assert head is not None
    opened = rounds.start(
        services.store, 1, number=1, version="v1-auto", trigger="", strategy="auto", options={}, seed=0
    )
    path = rounds.save_head(services.store, opened, *FrozenSpace(head).state())
    file = str(path.relative_to(services.store.data_dir))
    rounds.reach(services.store, opened.id, "saved", head=file, schema_hash=old.config_hash)
    rounds.put_in_force(services.store, opened)
    answerer = Answerer(services)

    def ticked(label_config: str) -> list[Any]:
        project = projects.remember(services.store, 1, label_config=label_config)
        (row,) = answerer.answer(project, [{"id": 4}])
        return row["result"]

    assert ticked(config("A", "B"))
    assert ticked(config("B", "A")) == []
    assert ticked(config("A", "B", "C")) == []
    assert ticked(config("A", "B"))


def test_a_label_of_a_choice_that_is_gone_is_left_out_of_a_round(services: Services) -> None:
    connected(services, config("A", "B"))
    assert embed_chunk(services, 1) == len(ANSWERS)
    arrays = load_arrays(services, 1, TaskSchema.from_label_config(config("A", "C")))
    assert arrays.task_ids[arrays.labelled].tolist() == [1]
    assert 2 not in arrays.task_ids and 4 in arrays.task_ids
