"""Many replays: paired where they are compared, kept when they are done, never done twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import errors
from backend.simulation import experiment
from backend.simulation.arms import Arm, all_arms, usual_arms
from backend.simulation.experiment import Cell, Plan, cell_key, run, run_cell
from backend.simulation.labelled_set import LabelledSet, with_plan
from backend.simulation.replay import replay
from backend.simulation.results import compare
from backend.simulation.scenarios import SCENARIOS, make_case
from backend.simulation.tables import advice, report
from backend.strategies import create_strategy, describe, strategy_names
from tests.simulation.synthetic import small_set, tagged_set

DATA = small_set()


def picks(data: LabelledSet, arm: str, seed: int = 0, scenario: str = "plain", **options: Any) -> list[int]:
    case = make_case(data, scenario, "random", seed)
    curve = replay(
        case.features, case.labels, data.classes, case.holdout, arm, batch_size=10, budget=40, seed=seed,
        answers=case.answers, left_out=case.left_out, **options,
    )  # fmt: skip
    return curve.picks.tolist()


def timeless(cell: dict[str, Any]) -> dict[str, Any]:
    kept = {name: values for name, values in cell["measures"].items() if not name.startswith("seconds")}
    return {**cell, "measures": kept}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_arms_with_one_cold_start_share_split_and_first_batch(scenario: str) -> None:
    arms = ("random", "random>margin", "random>badge", "random>bmmal")
    firsts = [picks(DATA, arm, scenario=scenario)[:10] for arm in arms]
    assert all(first == firsts[0] for first in firsts)
    assert picks(DATA, "random>margin", scenario=scenario)[10:] != picks(DATA, "random>badge", scenario=scenario)[10:]


def test_another_seed_has_another_first_batch_and_an_own_cold_start_its_own() -> None:
    assert picks(DATA, "random", seed=0)[:10] != picks(DATA, "random", seed=1)[:10]
    assert picks(DATA, "margin")[:10] == picks(DATA, "badge")[:10] == picks(DATA, "kmeans_cold_start")[:10]
    assert picks(DATA, "margin")[:10] != picks(DATA, "random>margin")[:10]


def test_what_the_annotator_says_is_learnt_and_the_truth_is_scored() -> None:
    case = make_case(DATA, "plain", "random", 0)
    backwards = (case.labels + 1) % len(DATA.classes)
    curve = replay(
        case.features, case.labels, DATA.classes, case.holdout, "random", batch_size=60, budget=60, seed=0,
        answers=backwards,
    )  # fmt: skip
    assert curve.accuracy[-1] < 0.3


def test_items_left_out_are_neither_picked_nor_scored_on() -> None:
    case = make_case(DATA, "long_tail", "random", 0)
    pool = int((~(case.holdout | case.left_out)).sum())
    curve = replay(
        case.features, case.labels, DATA.classes, case.holdout, "random", batch_size=10, budget=pool, seed=0,
        left_out=case.left_out,
    )  # fmt: skip
    assert len(curve.picks) == pool and not case.left_out[curve.picks].any()
    with pytest.raises(errors.ReplayInvalid, match="budget"):
        replay(
            case.features, case.labels, DATA.classes, case.holdout, "random", batch_size=10, budget=pool + 1, seed=0,
            left_out=case.left_out,
        )  # fmt: skip


def test_the_answers_of_unlabelled_items_influence_nothing_under_any_arm() -> None:
    case = make_case(DATA, "plain", "random", 1)
    for arm in usual_arms():
        before = picks(DATA, arm, seed=1)
        answers = (case.labels + 1) % len(DATA.classes)
        answers[before[:30]] = case.labels[before[:30]]
        after = replay(
            case.features, case.labels, DATA.classes, case.holdout, arm, batch_size=10, budget=40, seed=1,
            answers=answers,
        )  # fmt: skip
        assert after.picks.tolist() == before, arm


def test_a_cell_holds_every_measure_for_every_round_and_the_costly_ones_for_some() -> None:
    cell = run_cell(Cell("small", "plain", "random", "random>margin", 0), DATA)
    assert cell["n_labels"] == [10, 20, 30, 40] and cell["classes"] == 4
    assert cell["pool"] + cell["scored_on"] == len(DATA)
    assert all(len(values) == 4 for values in cell["measures"].values())
    costly = {"temperature", "nll_calibrated", "ece_calibrated", "alone_image", "alone_text"}
    for name, values in cell["measures"].items():
        known = [value is not None for value in values]
        assert known == ([False, False, False, True] if name in costly else [True] * 4), name
    assert {"dominance", "contribution_image", "accuracy_text", "seconds_fit", "seconds_select"} < set(
        cell["measures"]
    )


def test_finished_replays_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(["margin"], seeds=2)
    first = run([DATA], plan, tmp_path, jobs=1)
    assert [(c["arm"], c["seed"]) for c in first.cells] == [
        ("random", 0),
        ("margin", 0),
        ("random", 1),
        ("margin", 1),
    ]
    ran: list[Cell] = []

    def noting(cell: Cell, data: LabelledSet, audit_share: float) -> dict[str, Any]:
        ran.append(cell)
        return run_cell(cell, data, audit_share)

    monkeypatch.setattr(experiment, "run_cell", noting)
    assert run([DATA], plan, tmp_path, jobs=1) == first and ran == []
    run([DATA], replace(plan, arms=["margin", "entropy"]), tmp_path, jobs=1)
    assert {cell.arm for cell in ran} == {"entropy"}
    again = run([DATA], plan, tmp_path, jobs=1, fresh=True)
    assert len(ran) == 2 + 4
    assert list(map(timeless, again.cells)) == list(map(timeless, first.cells))


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    plan = Plan([], seeds=2)
    first = run([DATA], plan, tmp_path, jobs=1)
    file = tmp_path / "cells.jsonl"
    file.write_text(file.read_text()[:-200])
    again = run([DATA], plan, tmp_path, jobs=1)
    assert list(map(timeless, again.cells)) == list(map(timeless, first.cells))
    whole = run([DATA], plan, tmp_path, jobs=1)
    assert whole == again


def test_the_key_changes_with_everything_the_figures_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("small", "plain", "random", "margin", 0)
    keys = [cell_key(cell, DATA, 0.0), cell_key(cell, DATA, 0.1), cell_key(cell, small_set(seed=1), 0.0)]
    keys += [cell_key(cell, with_plan(DATA, 5, None), 0.0), cell_key(cell, with_plan(DATA, None, 30), 0.0)]
    keys += [
        cell_key(replace(cell, **{name: value}), DATA, 0.0)
        for name, value in {"scenario": "noisy", "split": "grouped", "arm": "badge", "seed": 1}.items()
    ]
    later_default = {**create_strategy("margin").__dict__, "cold_start": "typiclust"}
    monkeypatch.setattr(type(create_strategy("margin")), "__repr__", lambda self: f"MarginSampling({later_default})")
    keys.append(cell_key(cell, DATA, 0.0))
    monkeypatch.setattr(experiment, "PROTOCOL", experiment.PROTOCOL + 1)
    keys.append(cell_key(cell, DATA, 0.0))
    assert len(set(keys)) == len(keys)


def test_parallel_replays_are_those_of_one_process(tmp_path: Path) -> None:
    plan = Plan(["random>margin"], scenarios=("plain", "noisy"), seeds=1)
    alone = run([DATA], plan, tmp_path / "one", jobs=1)
    both = run([DATA], plan, tmp_path / "two", jobs=2)
    assert list(map(timeless, alone.cells)) == list(map(timeless, both.cells))


def test_a_failed_replay_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    broken = replace(DATA, name="broken", features={**DATA.features, "text": np.full((160, 8), np.nan, np.float32)})
    with pytest.raises(errors.SimulationError, match="broken"):
        run([DATA, broken], Plan([], seeds=1), tmp_path, jobs=2)
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    assert [json.loads(line)["dataset"] for line in lines if line] == ["small"]


def test_what_a_set_does_not_admit_is_left_out_with_the_reason(tmp_path: Path) -> None:
    one = replace(DATA, features={"text": DATA.features["text"]})
    outcome = run([one], Plan(["bmmal", "margin"], ("plain", "image_blank"), seeds=1), tmp_path, jobs=1)
    assert {cell["arm"] for cell in outcome.cells} == {"random", "margin"}
    assert {(left.what, left.dataset) for left in outcome.unsuited} == {("bmmal", "small"), ("image_blank", "small")}
    assert all(left.why for left in outcome.unsuited)
    short = with_plan(DATA, None, 110)
    [left] = run([short], Plan([], ("plain", "long_tail"), seeds=1), tmp_path, jobs=1).unsuited
    assert left.what == "long_tail" and "--budget" in left.why


def test_items_with_several_labels_are_replayed_with_the_strategies_defined_for_them(tmp_path: Path) -> None:
    plan = Plan(["auto", "random>badge", "random>dropquery"], ("plain", "noisy", "text_blank", "long_tail"), seeds=2)
    outcome = run([tagged_set()], plan, tmp_path, jobs=1)
    left_out = {one.what: one.why for one in outcome.unsuited}
    assert set(left_out) == {"random>dropquery", "long_tail"}
    assert "single-choice" in left_out["random>dropquery"] and "several labels" in left_out["long_tail"]
    comparisons = compare(outcome.cells)
    assert [one.scenario for one in comparisons] == ["plain", "noisy", "text_blank"]
    for one in comparisons:
        assert set(one.arms) == {"random", "auto", "random>badge"}
        for own in one.arms.values():
            assert 0.25 < own.last["map"] <= 1 and own.last["accuracy"] <= own.last["micro_f1"]
    text = report(comparisons)
    assert "5 labels" in text and "micro F1" in text
    assert "mean average precision" in advice(comparisons[0])[0] or "no strategy" in advice(comparisons[0])[0]


def test_several_labels_of_unlabelled_items_influence_nothing() -> None:
    data = tagged_set()
    before = picks(data, "random>auto")
    changed = 1 - data.labels
    changed[before[:30]] = data.labels[before[:30]]
    case = make_case(data, "plain", "random", 0)
    after = replay(
        case.features, case.labels, data.classes, case.holdout, "random>auto", batch_size=10, budget=40, seed=0,
        answers=changed,
    )  # fmt: skip
    assert after.picks.tolist() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenarios": ("fog",)}, "fog"),
        ({"splits": ("odd",)}, "odd"),
        ({"seeds": 0}, "seeds"),
        ({"first_seed": -1}, "first_seed"),
        ({"arms": ["nonesuch"]}, "nonesuch"),
        ({"arms": ["auto:nope=1"]}, "nope"),
    ],
)
def test_impossible_plans_are_refused_before_anything_runs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        Plan(**{"arms": ["random"], **change})


def test_an_arm_is_read_with_its_options() -> None:
    arm = Arm.parse("random>badge:cold_start=random:balance=tail_first")
    assert (arm.cold, arm.strategy) == ("random", "badge")
    assert arm.options == {"cold_start": "random", "balance": "tail_first"}
    cold, warm = arm.strategies()
    assert cold.name == "random" and warm.name != "badge"  # it wears the balance
    assert Arm.parse("kmeans_cold_start:rounds=3").options == {"rounds": 3}


@pytest.mark.parametrize("text", ["", ">badge", "random>", "badge:rounds", "badge:=3"])
def test_what_is_no_arm_is_refused(text: str) -> None:
    with pytest.raises(errors.ReplayInvalid, match="COLD>NAME"):
        Arm.parse(text)


def test_all_arms_are_all_strategies_and_the_usual_ones_are_among_them() -> None:
    strategies = {Arm.parse(arm).strategy for arm in all_arms()}
    assert strategies == {name for name in strategy_names() if "shared_space" not in describe(name).needs}
    assert {"random", "auto", "random>badge"} <= set(usual_arms()) <= set(all_arms())
