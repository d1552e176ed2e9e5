"""What a round makes of several answers, and who is asked once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.errors import OptionsInvalid
from backend.rounds import deciding
from backend.rounds.deciding import decide_labels
from backend.rounds.label_models import resolve_labels
from backend.rounds.opinions import opinions_waiting
from backend.rounds.options import ProjectOptions, change_options
from backend.rounds.report import status_lines
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.settings import Settings
from backend.store import answers, projects, tasks
from backend.store.answers import relabel
from tests.rounds.test_cut_off import Killed
from tests.rounds.test_label_models import CONFIG, SINGLE
from tests.rounds.test_label_models import answers as simulated


class World:
    """A project whose tasks get answers (annotator, choice)."""

    def __init__(self, folder: Path) -> None:
        self.services = Services(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make"))
        self.store = self.services.store
        projects.remember(self.store, 1, state="attached", label_config=CONFIG.format(choice="single"))

    def answer(self, task: int, *given: tuple[int, str], kind: str = "tie", label: str = "") -> int:
        tasks.remember(self.store, 1, [tasks.Inputs(task, "", f"text {task}")])
        rows: list[dict[str, Any]] = [
            {"annotation_id": 100 * task + who, "task_id": task, "annotator_id": who, "updated_at": "2026-01-01",
             "choices": [choice], "has_choices": True, "was_cancelled": False, "ground_truth": False, "problem": ""}
            for who, choice in given
        ]  # fmt: skip
        return tasks.label(self.store, 1, [tasks.Labelling(task, kind, [label] if label else [], rows)])

    def label(self, task: int) -> tuple[str, list[str]]:
        with self.store.reading() as session:
            found = session.get(tasks.Task, (1, task))
            return found.label_kind, found.label

    def decide(self, model: str) -> int:
        project = projects.get(self.store, 1)
        return decide_labels(self.services, project, SINGLE, ProjectOptions(label_model=model))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    given, _ = simulated(80, [0.97, 0.95, 0.4])
    for task, found in given.items():
        made.answer(task, *((a.annotator_id, a.choices[0]) for a in found))
    return made


def test_the_model_decides_ties_and_the_majority_takes_them_back(world: World) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    world.decide("majority")
    assert world.label(200) == ("tie", [])
    assert world.decide("one_coin") > 0
    assert world.label(200) == ("label", ["cat"])
    assert world.decide("one_coin") == 0
    world.decide("majority")
    assert world.label(200) == ("tie", [])


def test_what_was_answered_while_a_round_decides_stays_and_is_what_a_later_look_finds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))

    def look_meanwhile(*given: Any, **how: Any) -> Any:
        # One annotation was deleted, and the other says something else now.
        world.answer(200, (3, "bird"), kind="label", label="bird")
        return resolve_labels(*given, **how)

    monkeypatch.setattr(deciding, "resolve_labels", look_meanwhile)
    assert world.decide("one_coin") > 0
    assert world.label(200) == ("label", ["bird"])


def test_the_majority_decides_again_only_after_all_answers_were_read_or_another_model_decided(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = []

    def resolve(*given: Any, **how: Any) -> Any:
        decisions.append(given[1])
        return resolve_labels(*given, **how)

    monkeypatch.setattr(deciding, "resolve_labels", resolve)
    for model in ("majority", "majority", "one_coin", "one_coin", "majority", "majority"):
        world.decide(model)
    assert decisions == ["majority", "one_coin", "one_coin", "majority"]
    projects.remember(world.store, 1, reconciled_at=1.0)
    world.decide("majority")
    world.decide("majority")
    assert decisions[4:] == ["majority"]


def test_a_model_that_was_cut_off_leaves_no_majority_to_rely_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    world.decide("majority")

    def die_after(*given: Any) -> int:
        relabel(*given)
        raise Killed

    with monkeypatch.context() as at_the_end, pytest.raises(Killed):
        at_the_end.setattr(answers, "relabel", die_after)
        world.decide("one_coin")
    assert world.label(200) == ("label", ["cat"])
    world.decide("majority")
    assert world.label(200) == ("tie", [])


def test_reading_the_same_answers_again_keeps_what_a_round_decided_and_new_ones_count_at_once(world: World) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    world.decide("one_coin")
    assert world.answer(200, (1, "cat"), (3, "dog")) == 0
    assert world.label(200) == ("label", ["cat"])
    assert world.answer(200, (1, "cat"), (3, "dog"), (2, "dog"), kind="label", label="dog") == 1
    assert world.label(200) == ("label", ["dog"])


def test_a_task_that_lost_its_answers_is_not_labelled_again(world: World) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    tasks.drop(world.store, 1, [200])
    world.decide("one_coin")
    assert world.label(200) == ("none", [])
    world.answer(200, (1, "cat"), (3, "cat"), kind="label", label="cat")
    assert world.label(200) == ("label", ["cat"])


def test_a_task_waits_for_another_opinion_until_one_more_annotator_answered(world: World) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    world.answer(201, (1, "cat"), (3, "dog"))
    assert answers.undecided(world.store, 1)[200] == (2, 0, 0)
    answers.note_overlap(world.store, 1, [200], before=2, asked=3)
    assert opinions_waiting(world.services, 1) == [200]
    assert answers.raised_overlaps(world.store, 1) == {200: (3, 2)}
    world.answer(200, (1, "cat"), (3, "dog"), (2, "bird"))  # it came, and was a third answer
    assert opinions_waiting(world.services, 1) == []


def test_status_shows_agreement_and_waiting_opinions(world: World) -> None:
    world.answer(200, (1, "cat"), (3, "dog"))
    answers.note_overlap(world.store, 1, [200], before=2, asked=3)
    status = project_status(world.services, projects.get(world.store, 1), with_agreement=True)
    assert status.agreement is not None and status.agreement.tasks == 81
    assert status.agreement.annotators[0].annotator == 3
    text = "\n".join(status_lines(status))
    assert "another one asked for on 1 tasks" in text and "annotators  3: " in text and "classes     " in text
    assert project_status(world.services, projects.get(world.store, 1)).agreement is None


@pytest.mark.parametrize("opinions", [1, 2])
def test_a_limit_of_opinions_that_asks_nobody_is_refused(opinions: int) -> None:
    with pytest.raises(OptionsInvalid, match="Use 3 or more, or 0"):
        change_options({}, {"opinions": opinions}, SINGLE)
