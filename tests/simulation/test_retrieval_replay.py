"""Replays of retrieval: several labels a pair, the same split and first batch for all arms, honest scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backend import errors
from backend.cli import app
from backend.simulation.cells import Cell, run
from backend.simulation.openclipart import Drawing
from backend.simulation.pairs import Pairs as Listed
from backend.simulation.results import compare
from backend.simulation.retrieval import retrieval_sets
from backend.simulation.retrieval.experiment import RetrievalPlan, all_retrieval_arms, usual_retrieval_arms
from backend.simulation.retrieval.replay import ROUNDS, after_round, replay
from backend.simulation.retrieval.retrieval_sets import RetrievalSet
from backend.simulation.retrieval.tags import drawing_folders, tagged, words_of
from backend.simulation.tables import report, retrieval_table
from backend.strategies import create_strategy, strategy_names
from benchmarks.strategy_tables import retrieval_tables

N = 120


def tiny(name: str = "tiny", seed: int = 0) -> RetrievalSet:
    """Pairs about one or two of six things, seen dimly by both sides; two rows each are of one group."""
    rng = np.random.default_rng(seed)
    labels = np.eye(6, dtype=np.int8)[rng.integers(0, 6, N)]
    labels[np.arange(0, N, 3), rng.integers(0, 6, N // 3)] = 1
    features = {}
    for modality, width in (("image", 14), ("text", 10)):
        rows = labels @ rng.normal(size=(6, width)) + 0.7 * rng.normal(size=(N, width))
        features[modality] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    classes = [f"thing {c}" for c in range(6)]
    return RetrievalSet(
        name, features, np.arange(N) // 2, labels, classes, pool=72, held_out=40, batch_size=10, budget=30
    )


DATA = tiny()


def timeless(cell: dict[str, Any]) -> dict[str, Any]:
    kept = {name: values for name, values in cell["measures"].items() if not name.startswith("seconds")}
    return {**cell, "measures": kept}


def one_cell(arm: str, data: RetrievalSet = DATA, seed: int = 0, scenario: str = "plain") -> dict[str, Any]:
    return timeless(RetrievalPlan([arm]).run_cell(Cell(data.name, scenario, "grouped", arm, seed), data))


# -- labels -------------------------------------------------------------------------------------------------------


def listed(texts: list[str], labels: list[int], classes: list[str]) -> Listed:
    n = len(texts)
    return Listed([str(i) for i in range(n)], [Path()] * n, texts, np.array(labels), classes, np.arange(n), None)


def test_a_pair_has_its_class_and_the_frequent_words_of_its_title() -> None:
    texts = ["A red bird", "The red fish", "blue bird", *["thing"] * 7, "other", "more"]
    labels = [0, 1, 0, *[2] * 9]
    tags = tagged(listed(texts, labels, ["flying", "swimming", "lying"]))
    assert list(tags.names[:3]) == ["flying", "swimming", "lying"]
    has = {name: np.flatnonzero(tags.labels[:, c]).tolist() for c, name in enumerate(tags.names)}
    assert has["red"] == [0, 1]
    # In half of the pairs: too frequent. On the same pairs as a class: nothing new.
    assert "thing" not in has and "bird" not in has
    assert "the" not in has
    assert (tags.labels.sum(axis=1) >= 1).all()


def test_a_word_that_several_classes_are_named_by_joins_them() -> None:
    labels = [0, 1, *[2] * 8]
    tags = tagged(listed(["x"] * 10, labels, ["face-smiling", "face-unwell", "tool"]))
    assert np.flatnonzero(tags.labels[:, tags.names.index("face")]).tolist() == [0, 1]


def test_no_two_labels_have_one_name() -> None:
    labels = [0, 0, 0, 1, *[2] * 10]
    tags = tagged(listed(["x", "heart", "y", "heart", *["z"] * 10], labels, ["heart", "b", "c"]))
    assert len(set(tags.names)) == len(tags.names)
    assert "heart (word)" in tags.names


def test_folders_are_labels_under_their_path() -> None:
    folders = [["a/b"], ["a/b"], *[[]] * 8]
    tags = tagged(listed(["x"] * 10, [*[0] * 5, *[1] * 5], ["a", "c"]), folders)
    assert np.flatnonzero(tags.labels[:, tags.names.index("a/b")]).tolist() == [0, 1]


def test_words_are_letters_without_stop_words() -> None:
    assert words_of("The RED_car no. 12, of Ann's") == {"red", "car", "ann"}


def test_drawings_are_found_again_in_their_order_and_a_foreign_set_is_refused() -> None:
    drawings = [
        Drawing("a.png", ("food", "fruit", "apples"), "Apple", ""),
        Drawing("b.png", ("logos",), "Apple", ""),
        Drawing("c.png", ("food",), "Apple", ""),
    ]
    pairs = listed(["Apple", "Apple"], [0, 0], ["food"])
    assert drawing_folders(pairs, drawings) == [["food/fruit", "food/fruit/apples"], []]
    with pytest.raises(errors.DatasetInvalid, match="Pear"):
        drawing_folders(listed(["Pear"], [0], ["food"]), drawings)


def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stands tiny files and vectors in for downloads."""
    files = [tmp_path / f"{i}.png" for i in range(N)]
    for i, path in enumerate(files):
        path.write_bytes(str(i % (N - 1)).encode())  # two of the same bytes
    names = ["round-thing", "square-thing", "thing"]
    texts = [f"{'red' if i % 4 == 0 else 'plain'} {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(N)]
    pairs = Listed([str(i) for i in range(N)], files, texts, np.arange(N) % 3, names, np.arange(N), None)
    monkeypatch.setattr(retrieval_sets, "build_dataset", lambda name, cache: tmp_path)
    monkeypatch.setattr(retrieval_sets, "load_dataset", lambda folder: pairs)
    monkeypatch.setattr(retrieval_sets, "embed_dataset", lambda pairs, encoder, cache: DATA.features)
    monkeypatch.setitem(retrieval_sets.SIZES, "tux12", (72, 40))


def test_a_named_set_has_several_labels_a_pair_and_tells_how_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named(monkeypatch, tmp_path)
    data = retrieval_sets.named_retrieval_set("tux12", tmp_path, "packaged")
    assert "red" in data.classes
    assert (data.labels[::4, data.classes.index("red")] == 1).all()
    assert f"{len(data.classes)} labels: 3 classes" in data.notes[0]
    assert data.groups[0] == data.groups[N - 1]  # the same picture


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownDataset, match="fluent57, openclipart16, tux12"):
        retrieval_sets.named_retrieval_set("twins", tmp_path, "packaged")


# -- replays ------------------------------------------------------------------------------------------------------


def test_pool_and_test_share_no_pair_and_no_group() -> None:
    for seed in range(5):
        pool, tested = DATA.split(seed)
        assert not set(DATA.groups[pool]) & set(DATA.groups[tested])
        assert (len(pool), len(tested)) == (72, 40)
    assert DATA.split(0)[0].tolist() != DATA.split(1)[0].tolist()


@pytest.mark.parametrize("arm", ["random", "auto", "badge", "query_bank", "ascmr:steps=5"])
def test_the_same_seed_gives_the_same_curve(arm: str) -> None:
    assert one_cell(arm) == one_cell(arm)
    assert one_cell(arm, seed=1) != one_cell(arm)


def test_every_arm_shares_split_and_first_batch_and_only_those() -> None:
    cells = [one_cell(arm) for arm in ("random", "entropy", "coreset")]
    for name, values in cells[0]["measures"].items():
        assert [cell["measures"][name][0] for cell in cells] == [values[0]] * 3
    assert len({tuple(cell["measures"]["map"]) for cell in cells}) == 3


def test_each_round_labels_a_batch_until_the_budget_is_spent() -> None:
    rounds = replay(replace(DATA, budget=25), "plain", create_strategy("random"), seed=0)
    assert [measured["n_labels"] for measured in rounds] == [10, 20, 25]


def test_labels_that_were_not_given_do_not_change_the_next_batch() -> None:
    start = ROUNDS.opening(DATA, "plain", 0)
    hidden = start.known[:, 0] < 0
    assert hidden.sum() == 62 and (start.known[~hidden] == start.truth[~hidden]).all()
    other = replace(start, truth=np.where(hidden[:, None], 1 - start.truth, start.truth).astype(np.int8))
    for name in ("auto", "badge", "ascmr"):
        strategy = create_strategy(name, **({"steps": 5} if name == "ascmr" else {}))
        asked = [after_round(DATA, "plain", each, strategy, 0).known[:, 0] >= 0 for each in (start, other)]
        np.testing.assert_array_equal(*asked)


def test_held_out_labels_change_scores_and_nothing_else() -> None:
    labels = DATA.labels.copy()
    labels[DATA.split(0)[1]] = np.roll(labels[DATA.split(0)[1]], 1, axis=0)
    shuffled = replace(DATA, labels=labels)
    strategy = create_strategy("badge")
    kept = [after_round(each, "plain", ROUNDS.opening(each, "plain", 0), strategy, 0) for each in (DATA, shuffled)]
    np.testing.assert_array_equal(kept[0].known, kept[1].known)
    assert kept[0].rounds[-1]["map"] > kept[1].rounds[-1]["map"]


def test_labels_help_and_scores_are_shares() -> None:
    rounds = replay(replace(DATA, budget=70), "plain", create_strategy("random"), seed=0)
    assert rounds[-1]["map"] > rounds[0]["map"]
    for measured in rounds:
        assert all(0 <= value <= 1 for name, value in measured.items() if name.startswith(("map", "classes")))
        both = (measured["map_image_to_text"] + measured["map_text_to_image"]) / 2
        assert measured["map"] == pytest.approx(both)


def test_a_scenario_changes_the_model() -> None:
    assert one_cell("random", scenario="labelled_pairs")["measures"] != one_cell("random")["measures"]


@pytest.mark.slow
def test_the_authors_network_can_be_replayed_too() -> None:
    rounds = replay(replace(DATA, budget=20), "ascmr_network", create_strategy("entropy"), seed=0)
    assert len(rounds) == 2
    assert all(0 < measured["map"] <= 1 for measured in rounds)


# -- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenarios": ["long_tail"]}, "labelled_pairs"),
        ({"seeds": 0}, "seeds=0"),
        ({"arms": ["random>badge"]}, "write NAME alone"),
        ({"arms": ["nothing"]}, "does not exist"),
        ({"arms": ["ascmr:nothing=1"]}, "no option"),
    ],
)
def test_impossible_plans_are_refused_before_anything_runs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        RetrievalPlan(**{"arms": ["random"], **change})


def test_strategies_of_one_label_a_pair_or_of_two_pools_are_left_out_with_their_own_word(tmp_path: Path) -> None:
    outcome = run([DATA], RetrievalPlan(["dropquery", "alfamix", "three_step"], seeds=1), tmp_path, jobs=1)
    assert {cell["arm"] for cell in outcome.cells} == {"random"}
    why = {left.what: left.why for left in outcome.unsuited}
    assert "single-choice" in why["dropquery"] and "single-choice" in why["alfamix"]
    assert "pairs two pools" in why["three_step"]


def test_a_set_that_is_too_small_is_left_out_with_the_reason(tmp_path: Path) -> None:
    for wrong, words in ((replace(DATA, pool=100), "too few"), (replace(DATA, budget=80), "--budget")):
        outcome = run([wrong, tiny("other")], RetrievalPlan([], seeds=1), tmp_path, jobs=1)
        assert [cell["dataset"] for cell in outcome.cells] == ["other"]
        assert [left.dataset for left in outcome.unsuited] == ["tiny"] and words in outcome.unsuited[0].why


def test_a_budget_beyond_the_pool_is_refused() -> None:
    with pytest.raises(errors.ReplayInvalid, match="budget=80"):
        ROUNDS.opening(replace(DATA, budget=80), "plain", 0)


def test_a_finished_replay_is_known_by_model_labels_and_sizes() -> None:
    plan = RetrievalPlan(["random"])
    cell = Cell("tiny", "plain", "grouped", "random", 0)
    changed = [replace(DATA, labels=1 - DATA.labels), replace(DATA, batch_size=5), replace(DATA, pool=60)]
    keys = [plan.key(cell, data) for data in (DATA, *changed)]
    keys.append(plan.key(replace(cell, scenario="labelled_pairs"), DATA))
    assert len(set(keys)) == len(keys)
    assert plan.key(cell, tiny()) == keys[0]


def test_all_arms_are_all_strategies_for_records() -> None:
    assert {arm.partition(":")[0] for arm in all_retrieval_arms()} == set(strategy_names())
    assert set(usual_retrieval_arms()) <= set(all_retrieval_arms())
    assert not set(strategy_names(pairs=True)) & set(all_retrieval_arms())


# -- results ------------------------------------------------------------------------------------------------------


def test_results_compare_areas_of_map_with_random_over_the_same_seeds() -> None:
    plan = RetrievalPlan(["badge"], seeds=2)
    cells = [plan.run_cell(cell, DATA) for cell in plan.cells(DATA)]
    [found] = compare(cells)
    gaps = []
    for seed in (0, 1):
        curve = {cell["arm"]: cell["measures"]["map"] for cell in cells if cell["seed"] == seed}
        area = {arm: np.trapezoid(values, [10, 20, 30]) / 20 for arm, values in curve.items()}
        gaps.append(100 * (area["badge"] - area["random"]))
    assert found.difference("badge").mean == pytest.approx(np.mean(gaps), abs=0.02)
    assert found.difference("random").mean == 0
    text = report([found])
    assert retrieval_table(found) in text
    assert "mAP@all" in text and "72 pairs" in text


def test_models_are_held_against_the_default_one_under_the_same_random_labels() -> None:
    plan = RetrievalPlan([], scenarios=("plain", "labelled_pairs"), seeds=2)
    found = compare([plan.run_cell(cell, DATA) for cell in plan.cells(DATA)])
    gap = 100 * (np.mean(found[1].arms["random"].areas["map"]) - np.mean(found[0].arms["random"].areas["map"]))
    [line] = [
        line
        for line in retrieval_tables(found).partition("Models under random labels")[2].splitlines()
        if "`labelled_pairs`" in line
    ][:1]
    assert f"{gap:+.1f} ±" in line


def test_the_command_line_replays_a_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named(monkeypatch, tmp_path)
    asked = ["simulate", "--task", "retrieval", "-d", "tux12", "-s", "entropy dropquery", "--seeds", "2", "-j", "1"]
    asked += ["--batch-size", "10", "--budget", "20", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "`entropy`" in done.output and "dropquery is left out" in done.output
    assert (tmp_path / "out" / "tux12-plain-grouped.png").is_file()


def test_the_command_line_refuses_what_retrieval_does_not_have(tmp_path: Path) -> None:
    for extra in (["--split", "random"], ["--project", "3"]):
        done = CliRunner().invoke(app, ["simulate", "--task", "retrieval", *extra, "--out", str(tmp_path)])
        assert done.exit_code != 0
        assert "--task retrieval" in done.output
