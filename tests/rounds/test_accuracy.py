"""What the control sample says of the model: how well it does, how sure that is, and when nothing can be said."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from scipy.stats import binomtest

from backend.labelstudio.schema import TaskSchema
from backend.rounds.accuracy import Accuracy, accuracy_curve, estimate, measure_accuracy, wilson_interval
from backend.rounds.report import accuracy_curve_lines, status_lines
from backend.rounds.services import Services
from backend.rounds.status import project_status
from backend.settings import Settings
from backend.store import control_sample, projects, rounds, tasks
from backend.store.control_sample import ControlRound
from benchmarks.control_sample import compare, replay
from tests.rounds.test_label_models import CONFIG
from tests.simulation.synthetic import small_set, tagged_set


def drew(number: int, answers: int, right: int, prefilled: bool = False) -> ControlRound:
    return ControlRound(number, f"v{number}-auto", 40 * number, answers, right, prefilled)


def measured(*given: ControlRound) -> Accuracy:
    return measure_accuracy(given, multi_label=False)


@pytest.mark.parametrize(("right", "answers"), [(8, 10), (33, 40), (0, 10), (10, 10), (1, 1), (450, 500)])
def test_the_interval_is_wilsons(right: int, answers: int) -> None:
    expected = binomtest(right, answers).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, answers) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_below_ten_answers_nothing_is_said() -> None:
    assert measured(drew(2, 4, 4), drew(3, 5, 5)) == Accuracy("accuracy", 9, None, None)
    now = measured(drew(2, 4, 4), drew(3, 6, 5)).now
    assert now is not None and (now.answers, now.right, now.accuracy) == (10, 9, 0.9)


def test_the_newer_half_counts_and_no_more_rounds_than_forty_answers_take() -> None:
    few = estimate([drew(n, 4, 0) for n in range(2, 12)])
    assert few is not None and (few.since, few.until, few.answers, few.labels) == (7, 11, 20, 440)
    many = estimate([drew(n, 4, 0) for n in range(2, 102)])
    assert many is not None and (many.since, many.until, many.answers) == (92, 101, 40)
    large = estimate([drew(2, 500, 0), drew(3, 500, 500)])
    assert large is not None and (large.since, large.accuracy) == (3, 1.0)


def test_what_it_was_at_first_is_told_once_other_answers_tell_what_it_is_now() -> None:
    given = [drew(2, 10, 4), drew(3, 8, 8), drew(4, 2, 2)]
    assert measured(*given[:2]).first is None
    found = measured(*given)
    assert found.now is not None and found.first is not None
    assert (found.first.accuracy, found.now.accuracy, found.now.since) == (0.4, 1.0, 3)


def test_the_curve_has_a_point_for_each_round_from_the_first_with_enough() -> None:
    curve = list(accuracy_curve([drew(n, 4, 3) for n in range(2, 8)]))
    assert [e.until for e in curve] == [4, 5, 6, 7]


@cache
def compared(strategy: str, several: bool) -> list[tuple[bool, float, float]]:
    """Of the last estimate of each of many replays: whether it covers its heads, what it says, and their truth."""
    found = []
    for seed in range(60):
        data = tagged_set(320, 3, seed) if several else small_set(320, 4, seed)
        last, heads, _ = compare(replay(data, strategy, batch=20, share=0.2, budget=160, seed=seed))[-1]
        found.append((last.low <= heads <= last.high, last.accuracy, heads))
    return found


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
@pytest.mark.parametrize("strategy", ["margin", "random"])
def test_the_interval_covers_the_true_accuracy_of_its_heads_as_often_as_it_says(strategy: str, several: bool) -> None:
    covered, said, truth = zip(*compared(strategy, several), strict=True)
    # 95% of 60 are 57; fewer than 53 in one of a hundred such tests.
    assert sum(covered) >= 53
    # Without bias: the mean of 60 shares of some 20 answers has a standard error of 1.4 points.
    assert abs(sum(said) - sum(truth)) / 60 < 0.04


class World:
    """A project in which two rounds drew control tasks, all of them answered."""

    def __init__(self, folder: Path, choice: str = "single", **options: object) -> None:
        self.services = Services(Settings(data_dir=folder, encoder="import:tests.live.toy_encoder:make"))
        self.store = self.services.store
        config = CONFIG.format(choice=choice)
        schema = TaskSchema.from_label_config(config)
        projects.remember(
            self.store, 1, state="attached", label_config=config, schema_hash=schema.config_hash, options=options
        )
        tasks.remember(self.store, 1, [tasks.Inputs(n, "", f"text {n}") for n in range(1, 41)])
        self.hash, self.options, self.next_task = schema.config_hash, options, 1

    def round(self, number: int, right: int, wrong: int) -> None:
        opened = rounds.start(
            self.store, 1, number=number, version=f"v{number}-auto", trigger="", strategy="auto",
            options=self.options, seed=0,
        )  # fmt: skip
        rounds.reach(self.store, opened.id, "saved", schema_hash=self.hash, counts={"labels": 40 * number})
        drawn = range(self.next_task, self.next_task + right + wrong)
        self.next_task = drawn.stop
        control_sample.note(self.store, opened, {n: ["cat"] for n in drawn})
        rounds.put_in_force(self.store, opened)
        said = [["cat"] if n < drawn.start + right else ["dog"] for n in drawn]
        tasks.label(self.store, 1, [tasks.Labelling(n, "label", c) for n, c in zip(drawn, said, strict=True)])

    def line(self) -> str:
        lines = status_lines(project_status(self.services, projects.get(self.store, 1)))
        return "".join(line for line in lines if line.startswith("  accuracy"))


def test_status_tells_the_share_its_interval_and_what_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.line() == "  accuracy   told from 10 control answers on; 0 so far"
    world.round(2, right=5, wrong=5)
    world.round(3, right=8, wrong=2)
    assert world.line() == "  accuracy   80% of 10 control answers (49 to 94%), 50% at first"


def test_status_says_when_the_model_had_to_have_every_label_right_and_when_its_answers_were_shown(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, choice="multiple", prelabel=True)
    world.round(2, right=8, wrong=2)
    assert world.line() == (
        "  accuracy   80% of 10 control answers (49 to 94%), every label right; 10 of them PRE-FILLED, so rather less"
    )


def test_a_project_without_a_control_sample_is_told_nothing_of_it(tmp_path: Path) -> None:
    assert World(tmp_path, audit_share=0).line() == ""


def test_the_curve_is_printed_round_by_round(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert accuracy_curve_lines(world.services, 1) == (
        ["project 1 has 0 control answers; 10 are the least to tell from"], [],
    )  # fmt: skip
    world.round(2, right=5, wrong=5)
    world.round(3, right=8, wrong=2)
    lines, rows = accuracy_curve_lines(world.services, 1)
    assert [line.split() for line in lines[1:]] == [
        ["2", "80", "10", "2", "to", "2", "50%", "(24", "to", "76%)"],
        ["3", "120", "10", "3", "to", "3", "80%", "(49", "to", "94%)"],
    ]
    assert [row["accuracy"] for row in rows] == [0.5, 0.8]
