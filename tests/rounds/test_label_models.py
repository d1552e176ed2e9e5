"""Several answers become one label: ground truth first, then agreement, then what the annotators are worth."""

from __future__ import annotations

import importlib.util
import random
from datetime import UTC, datetime

import numpy as np
import pytest

from backend.errors import LabelModelUnsuited
from backend.labelstudio.annotations import Answer
from backend.labelstudio.schema import TaskSchema
from backend.rounds.label_models import LEAST_TASKS, check_label_model, resolve_labels
from backend.rounds.options import change_options

CONFIG = """<View><Text name="t" value="$t"/><Choices name="c" toName="t" choice="{choice}">
<Choice value="cat"/><Choice value="dog"/><Choice value="bird"/></Choices></View>"""
SINGLE = TaskSchema.from_label_config(CONFIG.format(choice="single"))
SEVERAL = TaskSchema.from_label_config(CONFIG.format(choice="multiple"))
CLASSES = SINGLE.choices
MODELS = ("dawid_skene", "one_coin")


def answer(task: int, annotator: int | None, *choices: str, truth: bool = False, number: int = 0) -> Answer:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Answer(number or 100 * task + (annotator or 99), task, annotator, moment, choices, False, truth)


def answers(count: int, accuracies: list[float], seed: int = 0) -> tuple[dict[int, list[Answer]], dict[int, str]]:
    """Answers of annotators of known accuracy to `count` tasks, and the truth."""
    rng = np.random.default_rng(seed)
    truth = {task: CLASSES[int(rng.integers(3))] for task in range(1, count + 1)}
    given = {}
    for task, right in truth.items():
        wrong = [c for c in CLASSES if c != right]
        given[task] = [
            answer(task, who, right if rng.random() < accuracy else wrong[int(rng.integers(2))])
            for who, accuracy in enumerate(accuracies, 1)
        ]
    return given, truth


@pytest.mark.parametrize("model", MODELS)
def test_reliable_annotators_outvote_a_majority_of_guessers(model: str) -> None:
    given, truth = answers(300, [0.97, 0.97, 0.4, 0.4, 0.4])
    resolved = {name: resolve_labels(given, name, multi_label=False) for name in ("majority", model)}
    right = {name: sum(r.choices == (truth[task],) for task, r in found.items()) for name, found in resolved.items()}
    assert right[model] > right["majority"] + 15
    assert right[model] > 0.93 * len(given)


@pytest.mark.parametrize("model", ["majority", *MODELS])
def test_ground_truth_wins_and_unanimous_answers_stand(model: str) -> None:
    given, _ = answers(60, [0.9, 0.6, 0.5])
    given[1] = [answer(1, who, "cat") for who in (1, 2, 3)] + [answer(1, 4, "bird", truth=True)]
    given[2] = [answer(2, 2, "dog"), answer(2, 3, "dog")]
    resolved = resolve_labels(given, model, multi_label=False)
    assert (resolved[1].choices, resolved[1].from_ground_truth) == (("bird",), True)
    assert (resolved[2].kind, resolved[2].choices) == ("label", ("dog",))


@pytest.mark.parametrize("model", MODELS)
def test_a_label_the_model_does_not_believe_in_is_a_tie_and_none_is_made_up(model: str) -> None:
    # Two annotators of whom nothing is known say different things of every task.
    given = {task: [answer(task, 1, "cat"), answer(task, 2, "dog")] for task in range(1, 31)}
    assert {r.kind for r in resolve_labels(given, model, multi_label=False).values()} == {"tie"}
    mixed, _ = answers(40, [0.8, 0.7, 0.5])
    for task, found in resolve_labels(mixed, model, multi_label=False).items():
        assert found.kind == "tie" or found.choices in {a.choices for a in mixed[task]}


@pytest.mark.parametrize("model", MODELS)
def test_ground_truth_of_some_tasks_tells_who_is_right_on_the_others(model: str) -> None:
    given = {task: [answer(task, 1, "cat"), answer(task, 2, "dog")] for task in range(1, 41)}
    for task in range(1, 26):
        given[task].append(answer(task, 3, "cat", truth=True))
    found = {r.choices for task, r in resolve_labels(given, model, multi_label=False).items() if task > 25}
    assert found == {("cat",)}


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_answers_and_tasks_changes_nothing(model: str) -> None:
    given, _ = answers(30, [0.9, 0.7, 0.5])
    shuffled = [(task, random.Random(task).sample(found, len(found))) for task, found in given.items()]
    random.Random(1).shuffle(shuffled)
    assert resolve_labels(dict(shuffled), model, multi_label=False) == resolve_labels(given, model, multi_label=False)


@pytest.mark.parametrize("model", MODELS)
def test_with_few_shared_tasks_the_majority_decides(model: str) -> None:
    given, _ = answers(LEAST_TASKS - 1, [0.9, 0.7, 0.4])
    given |= {task: [answer(task, 1, "cat")] for task in range(100, 200)}
    assert resolve_labels(given, model, multi_label=False) == resolve_labels(given, "majority", multi_label=False)


@pytest.mark.parametrize("model", MODELS)
def test_few_answers_skips_and_answers_without_an_annotator_are_no_trouble(model: str) -> None:
    skip = Answer(7, 3, 1, datetime(2026, 1, 1, tzinfo=UTC), None, True, False)
    given = {
        1: [answer(1, None, "cat", number=1), answer(1, None, "dog", number=2)],
        2: [answer(2, 1, "cat")],
        3: [skip],
        4: [],
    }
    kinds = {task: r.kind for task, r in resolve_labels(given, model, multi_label=False).items()}
    assert kinds == {1: "tie", 2: "label", 3: "skipped", 4: "none"}
    assert resolve_labels({}, model, multi_label=False) == {}


class TestConfiguring:
    def test_models_are_refused_where_several_choices_may_be_ticked(self) -> None:
        with pytest.raises(LabelModelUnsuited, match=r"several choices\. Use label_model = 'majority'"):
            change_options({}, {"label_model": "dawid_skene"}, SEVERAL)
        assert change_options({}, {"label_model": "majority"}, SEVERAL).label_model == "majority"

    def test_a_missing_package_is_named_with_the_command_that_installs_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check_label_model("one_coin", SINGLE)
        monkeypatch.setattr("backend.rounds.label_models.find_spec", lambda name: None)
        with pytest.raises(LabelModelUnsuited, match=r"pip install 'mmal-backend\[crowd\]'"):
            change_options({}, {"label_model": "one_coin"}, SINGLE)
        assert importlib.util.find_spec("crowdkit")
