"""Replays of pairing: hidden pairs, an annotator who knows them, the same first round for all, honest answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backend import errors
from backend.cli import app
from backend.learners.projection import ProjectionHead
from backend.rounds.pairing.choosing import PairingArrays
from backend.rounds.pairing.settling import settle
from backend.simulation.cells import Cell, run
from backend.simulation.pairing import pair_sets
from backend.simulation.pairing.annotator import Answers, answered
from backend.simulation.pairing.experiment import PairingPlan, all_pair_arms, usual_pair_arms
from backend.simulation.pairing.pair_sets import PairingSet, couple_groups
from backend.simulation.pairing.pools import Pools, drawn_pools
from backend.simulation.pairing.replay import ROUNDS, after_round, replay, scores, true_rank
from backend.simulation.pairs import Pairs as Listed
from backend.simulation.results import compare
from backend.simulation.tables import candidates_needed, pairing_table, pairs_gained, report
from backend.store.tables import PairQueryRow
from backend.strategies import create_strategy, strategy_names
from backend.strategies.pairing import MODALITIES, Pairs, Query
from benchmarks.strategy_tables import PAIRING_BEGIN, PAIRING_END, pairing_tables, put_into

VIEWS = {m: np.random.default_rng(9).normal(size=(6, width)) for m, width in (("image", 14), ("text", 10))}


def seen(n: int, seed: int) -> dict[str, np.ndarray]:
    """Two noisy views of n hidden scenes."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(n, 6))
    rows = {m: scenes @ view + 0.4 * rng.normal(size=(n, view.shape[1])) for m, view in VIEWS.items()}
    return {m: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for m, x in rows.items()}


def tiny(name: str = "tiny", *, couples: bool = False, seed: int = 0) -> PairingSet:
    n = 80
    other = seen(40, 77)
    twins = np.arange(n).reshape(-1, 2) if couples else np.empty((0, 2), dtype=np.int64)
    return PairingSet(
        name,
        seen(n, seed),
        couple_groups(twins) if couples else np.arange(n),
        {m: np.arange(n) for m in MODALITIES},
        # A fifth are of class 0, the others of smaller ones.
        np.minimum(np.arange(n) % 10, 8) // 2,
        twins,
        ProjectionHead.canonical([(other["image"], other["text"])], width=5),
        pool=48,
        held_out=20,
        batch_size=8,
        budget=24,
    )


DATA = tiny()


def timeless(cell: dict[str, Any]) -> dict[str, Any]:
    kept = {name: values for name, values in cell["measures"].items() if not name.startswith("seconds")}
    return {**cell, "measures": kept}


def one_cell(arm: str, data: PairingSet = DATA, seed: int = 0, scenario: str = "plain") -> dict[str, Any]:
    return timeless(PairingPlan([arm]).run_cell(Cell(data.name, scenario, "grouped", arm, seed), data))


# -- sets and splits ----------------------------------------------------------------------------------------------


def test_pool_and_test_share_no_pair_and_no_group() -> None:
    data = tiny(couples=True)
    for seed in range(5):
        pool, tested = data.split(seed)
        assert not set(pool) & set(tested)
        assert not set(data.groups[pool]) & set(data.groups[tested])
        assert (len(pool), len(tested)) == (48, 20)
    assert data.split(0)[0].tolist() != data.split(1)[0].tolist()


def test_equal_texts_and_equal_pictures_are_joined_through_chains() -> None:
    # Rows 0 and 1 share a text, 1 and 2 a picture.
    groups = pair_sets.one_sided(np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3]))
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_a_set_too_small_to_split_is_refused() -> None:
    with pytest.raises(errors.ReplayInvalid, match="too few"):
        replace(DATA, pool=70).split(0)


def test_a_budget_beyond_the_pool_is_refused() -> None:
    with pytest.raises(errors.ReplayInvalid, match="budget=60"):
        ROUNDS.opening(replace(DATA, budget=60), "plain", 0)


def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Stands tiny files and vectors in for downloads; returns what each start was trained without."""
    excluded: list[list[str]] = []

    files = [tmp_path / f"{i}.png" for i in range(80)]
    for i, path in enumerate(files):
        path.write_bytes(str(i % 79).encode())  # two of the same bytes
    numbers = np.arange(80)
    texts = [f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)]
    listed = Listed([str(i) for i in range(80)], files, texts, numbers * 0, ["thing"], numbers, None)

    def trained(*, exclude: list[str], **_: Any) -> ProjectionHead:
        excluded.append(list(exclude))
        return DATA.start

    monkeypatch.setattr(pair_sets, "build_dataset", lambda name, cache: tmp_path)
    monkeypatch.setattr(pair_sets.twins, "build_twins", lambda cache: tmp_path)
    monkeypatch.setattr(pair_sets, "load_dataset", lambda folder: listed)
    monkeypatch.setattr(pair_sets, "embed_dataset", lambda pairs, encoder, cache: DATA.features)
    monkeypatch.setattr(pair_sets, "train_warm_start", trained)
    return excluded


def test_the_start_was_never_trained_on_the_set_or_on_what_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    excluded = named(monkeypatch, tmp_path)
    for name in ("fluent57", "openclipart16", "twins"):
        data = pair_sets.named_pairing_set(name, tmp_path, "packaged")
        assert data.notes == (f"start trained without {' and '.join(excluded[-1])}",)
    assert excluded == [["fluent57"], ["openclipart16"], ["twins", "fluent57"]]
    assert len(data.couples) == 40
    assert data.contents["image"][0] == data.contents["image"][79] != data.contents["image"][1]


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownDataset, match="fluent57, openclipart16, tux12, twins"):
        pair_sets.named_pairing_set("nonesuch", tmp_path, "packaged")


# -- replays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["pair_random", "three_step", "hard_negative"])
def test_the_same_seed_gives_the_same_curve_and_another_seed_another(arm: str) -> None:
    first = one_cell(arm)
    ROUNDS.forget()
    assert one_cell(arm) == first
    assert one_cell(arm, seed=1)["measures"] != first["measures"]


def test_arms_share_split_and_first_round_and_part_after_it() -> None:
    cells = [one_cell(arm) for arm in ("pair_random", "pair_coreset", "three_step", "pair_margin", "hard_negative")]
    firsts = [{name: values[0] for name, values in cell["measures"].items()} for cell in cells]
    assert all(first == firsts[0] for first in firsts)
    assert len({json.dumps(cell["measures"]) for cell in cells}) == len(cells)
    assert all(cell["n_labels"] == [8, 16, 24] and (cell["pool"], cell["scored_on"]) == (48, 20) for cell in cells)


def test_nothing_of_unasked_items_reaches_an_arm() -> None:
    """Counterparts that nobody asked for could be others: the questions stay the same."""
    strategy = create_strategy("three_step", audit_share=0.25)
    before = ROUNDS.opening(DATA, "plain", 3)
    chosen = after_round(DATA, "plain", before, strategy, 3)
    asked = before.pools.rows["image"][np.unique(chosen.answers.known)]
    left = np.setdiff1d(np.arange(len(DATA)), asked)
    # Rows of unasked pairs exchange the content numbers of their texts among each other.
    texts = DATA.contents["text"].copy()
    texts[left] = np.roll(texts[left], 1)
    other = replace(DATA, name="other", contents={**DATA.contents, "text": texts})
    again = after_round(other, "plain", ROUNDS.opening(other, "plain", 3), strategy, 3)
    np.testing.assert_array_equal(again.answers.known, chosen.answers.known)


def test_every_answer_is_a_true_pair_and_is_paid_for() -> None:
    standing = ROUNDS.opening(DATA, "plain", 0)
    for _ in range(2):
        standing = after_round(DATA, "plain", standing, create_strategy("pair_random", audit_share=0.5), 0)
    known = standing.answers.known
    np.testing.assert_array_equal(known[:, 0], known[:, 1])
    assert standing.rounds[-1]["n_labels"] == 24 >= standing.rounds[-1]["pairs"] == len(known)
    assert len(standing.asked) == 3 and set(standing.asked) <= set(MODALITIES)


def test_without_a_start_the_projection_is_learnt_from_the_pairs_alone() -> None:
    with_start = one_cell("pair_random", scenario="plain_outside")["measures"]
    alone = one_cell("pair_random", scenario="no_start_outside")["measures"]
    other = seen(40, 5)
    swapped = replace(DATA, start=ProjectionHead.canonical([(other["image"], other["text"])], width=5))
    assert one_cell("pair_random", swapped, scenario="no_start_outside")["measures"] == alone
    assert with_start != alone
    assert one_cell("pair_random", swapped, scenario="plain_outside")["measures"] != with_start
    assert alone["recall_1"][-1] > 1.5 / 20


def test_imbalanced_pools_have_classes_of_steep_sizes_and_a_flat_test() -> None:
    plain, steep = (drawn_pools(DATA, scenario, 2) for scenario in ("plain", "imbalanced"))
    counts = [np.sort(np.bincount(DATA.labels[pools.rows["image"]])) for pools in (plain, steep)]
    assert counts[1].max() == counts[0].max() and counts[1].min() == 4
    assert counts[1].sum() < 0.8 * counts[0].sum()
    assert np.bincount(DATA.labels[steep.tested]).max() <= 8
    assert set(steep.tested) <= set(plain.tested)
    np.testing.assert_array_equal(steep.rows["image"], steep.rows["text"])
    assert one_cell("three_step", replace(DATA, budget=16), scenario="imbalanced")["pool"] < 48


def test_uneven_pools_have_texts_without_counterpart_which_gain_nothing() -> None:
    data = replace(DATA, budget=16)
    pools = drawn_pools(data, "uneven", 0)
    assert (len(pools.rows["image"]), len(pools.rows["text"]), pools.hidden) == (16, 48, 16)
    for scenario in ("uneven", "uneven_outside"):
        standing = ROUNDS.opening(data, scenario, 0)
        np.testing.assert_array_equal(standing.pools.rows["image"], pools.rows["image"])
        standing = after_round(data, scenario, standing, create_strategy("pair_random", directions="text"), 0)
        said = standing.answers
        paired = [pools.rows[m][said.known[:, side]] for side, m in enumerate(MODALITIES)]
        np.testing.assert_array_equal(*paired)
        given_up = said.closed["text"] if scenario == "uneven_outside" else ~said.askable(3)["text"]
        assert given_up.sum() > 0
        if scenario == "uneven_outside":
            assert not np.isin(pools.rows["text"][given_up], pools.rows["image"]).any()


def test_who_looks_outside_the_candidates_gains_a_pair_by_every_question_and_the_form_by_few() -> None:
    for seed in range(3):
        inside, outside = (
            one_cell("pair_random", replace(DATA, budget=16), seed, scenario)["measures"]
            for scenario in ("plain", "plain_outside")
        )
        # The first round asks the same; both ends of a pair may be asked about.
        assert inside["audit_shown"][0] == outside["audit_shown"][0]
        assert inside["pairs"][0] <= round(8 * inside["audit_shown"][0]) <= 8
        assert outside["pairs"][-1] >= 13
        assert inside["pairs"][-1] <= outside["pairs"][-1]


def test_the_annotator_leaves_behind_what_the_product_settles() -> None:
    """The same questions, answered by the form's rule and settled by the code of the rounds."""
    pools, rng, first = drawn_pools(DATA, "plain", 2), np.random.default_rng(2), 10_000
    rows = {m: DATA.features[m][pools.rows[m]] for m in MODALITIES}
    joint = {m: DATA.start.embed(m, rows[m]) for m in MODALITIES}
    truth = {m: [np.array([i]) for i in range(48)] for m in MODALITIES}
    numbers = {"image": np.arange(1, 49), "text": np.arange(first, first + 48)}
    arrays = PairingArrays(numbers, rows, {m: np.full(48, "pool") for m in MODALITIES})  # type: ignore[arg-type]
    said, asked = Answers.none_yet(pools), []
    for number in range(1, 7):
        pairs = Pairs(rows, joint, said.known, said.askable(number), refused=said.refused)
        chosen = create_strategy("pair_random", audit_share=0.5).select(pairs, 10, rng, candidates=3).queries
        asked += [form_answer(query, number, numbers) for query in chosen]
        said = answered(said, chosen, truth, pools, numbers, round_number=number, outside=False)
        settled = settle(asked, {}, number + 1)
        assert {tuple(pair) for pair in arrays.known(settled).tolist()} == {tuple(p) for p in said.known.tolist()}
        for m in MODALITIES:
            alone = np.setdiff1d(np.arange(48), said.known[:, MODALITIES.index(m)])
            theirs = numbers["text" if m == "image" else "image"]
            refused = {i: settled.refused.get(int(numbers[m][i]), set()) for i in alone}
            assert refused == {i: set(theirs[said.refused[m].get(i, [])].tolist()) for i in alone}
            resting = np.isin(numbers[m], list(settled.resting))
            assert said.askable(number + 1)[m][alone].tolist() == (~resting[alone]).tolist()
    assert 8 < len(said.known) < 48 and said.refused["image"] and said.refused["text"]


def form_answer(query: Query, number: int, numbers: dict[str, np.ndarray]) -> PairQueryRow:
    """Of a set where row i belongs to row i."""
    theirs = numbers["text" if query.modality == "image" else "image"]
    found = query.item in query.candidates
    return PairQueryRow(
        project_id=1, key=f"{number}/{query.modality}/{query.item}", task_id=1, round_number=number,
        modality=query.modality, item=int(numbers[query.modality][query.item]), purpose="query", why="random",
        candidates=theirs[query.candidates].tolist(), similarities=[], figures={}, further_partners=[],
        answer="pick" if found else "none", partner=int(theirs[query.item]) if found else 0,
        answered_at=f"2026-01-01T10:0{number}:00Z",
    )  # fmt: skip


def test_couples_are_scored_by_group_and_other_sets_are_not() -> None:
    measured = one_cell("pair_random", tiny("couples", couples=True))["measures"]
    assert all(0 <= value <= 1 for name in ("group", "group_text", "group_image") for value in measured[name])
    assert "group" not in one_cell("pair_random")["measures"]


# -- the annotator ------------------------------------------------------------------------------------------------


FIVE = Pools(dict.fromkeys(MODALITIES, np.arange(5)), np.arange(0))
APART = dict.fromkeys(MODALITIES, np.arange(5))


def after(known: list[tuple[int, int]], truth: dict[str, list[np.ndarray]], *asked: Query, outside: bool) -> Answers:
    before = replace(Answers.none_yet(FIVE), known=np.array(known, dtype=np.int64).reshape(-1, 2))
    return answered(before, asked, truth, FIVE, APART, round_number=1, outside=outside)


def query(modality: str, item: int, *candidates: int) -> Query:
    return Query(modality, item, np.array(candidates, dtype=np.int64), {}, "random")


def test_the_annotator_takes_a_true_candidate_else_the_counterpart_from_outside() -> None:
    truth = {
        "image": [np.array(t) for t in ([0, 3], [1], [2], [0, 3], [4])],
        "text": [np.array([i]) for i in range(5)],
    }
    said = after([], truth, query("image", 0, 2, 3), query("image", 1, 4, 2), outside=True)
    assert said.known.tolist() == [[0, 3], [1, 1]]
    assert not said.closed["image"].any()
    # Image 3 has the same text; the copy that is left serves it.
    assert after([(0, 3)], truth, query("image", 3, 1), outside=True).known.tolist() == [[0, 3], [3, 0]]


def test_by_the_form_a_counterpart_that_is_not_shown_is_none_of_these_and_the_item_rests() -> None:
    truth = {m: [np.array([i]) for i in range(5)] for m in MODALITIES}
    said = after([], truth, query("image", 0, 2, 0), query("image", 1, 4, 2), query("text", 3, 1), outside=False)
    assert said.known.tolist() == [[0, 0]]
    assert said.refused["image"].keys() == {1} and said.refused["image"][1].tolist() == [2, 4]
    assert said.refused["text"].keys() == {3}
    for number in (2, 3):
        assert said.askable(number)["image"].tolist() == [True, False, True, True, True]
    assert said.askable(4)["image"].all()
    again = answered(said, (query("image", 1, 0, 3),), truth, FIVE, APART, round_number=4, outside=False)
    assert again.refused["image"][1].tolist() == [0, 2, 3, 4] and not again.askable(5)["image"][1]


def test_an_item_asked_about_from_both_ends_is_one_pair_and_one_without_partner_is_closed() -> None:
    truth = {m: [np.array([i]) for i in range(5)] for m in MODALITIES}
    for outside in (True, False):
        said = after([], truth, query("image", 2, 2), query("text", 2, 2), query("text", 2, 1), outside=outside)
        assert said.known.tolist() == [[2, 2]]
        assert not said.closed["text"].any() and not said.refused["text"]
    truth["image"][4] = np.array([2, 4])
    said = after([(2, 4), (1, 2)], truth, query("image", 4, 0), outside=True)
    assert said.known.tolist() == [[2, 4], [1, 2]] and said.closed["image"].tolist() == [False] * 4 + [True]
    assert not after([(2, 4), (1, 2)], truth, query("image", 4, 0), outside=False).closed["image"].any()


def test_the_rank_of_the_truth_is_its_place_among_what_is_on_offer() -> None:
    rng = np.random.default_rng(4)
    joint = {m: rng.normal(size=(9, 4)).astype(np.float32) for m in MODALITIES}
    joint = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in joint.items()}
    known = np.array([[0, 0], [1, 1]])
    pairs = Pairs(joint, joint, known, {m: np.ones(9, dtype=bool) for m in MODALITIES})
    for item in range(2, 9):
        order = sorted(range(2, 9), key=lambda t: -float(joint["image"][item] @ joint["text"][t]))
        for right in ([item], [item, 3], [item, 0]):
            place = min(order.index(t) + 1 for t in right if t >= 2)
            assert true_rank(pairs, query("image", item), np.array(right)) == place
    assert true_rank(pairs, query("image", 5), np.array([1])) == np.inf
    best = int(np.argmax(joint["image"][5] @ joint["text"][[2, 3, 4, 6, 7, 8]].T))
    better = np.array([[2, 3, 4, 6, 7, 8][best]])
    fewer = replace(pairs, refused={"image": {5: better.ravel()}})
    assert true_rank(fewer, query("image", 5), np.array([5])) <= true_rank(pairs, query("image", 5), np.array([5]))


def test_equal_contents_are_right_answers() -> None:
    data = replace(DATA, name="one content", contents={m: np.zeros(80, dtype=np.int64) for m in MODALITIES})
    found = scores(DATA.start, data, np.arange(12))
    assert found["recall_1"] == found["recall_10"] == 1.0
    assert scores(DATA.start, DATA, np.arange(12))["recall_1"] < 1.0


def test_the_candidates_that_controls_ask_for_cover_what_they_promise() -> None:
    """Mean over seeds: everything open is drawn like the controls, so nine in ten are covered, but for noise."""
    covered = []
    for seed in range(12):
        rounds = replay(DATA, "plain", create_strategy("pair_random", audit_share=0.5), seed=seed)
        assert np.isnan(rounds[0].get("covered_open", np.nan))
        covered += [told["covered_open"] for told in rounds if "covered_open" in told]
    assert len(covered) > 6 and np.mean(covered) > 0.8


# -- plans --------------------------------------------------------------------------------------------------------


def test_finished_replays_are_not_run_again_and_others_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PairingPlan(["three_step"], seeds=2)
    first = run([DATA], plan, tmp_path, jobs=1)
    assert [(c["arm"], c["seed"]) for c in first.cells] == [
        ("pair_random", 0), ("three_step", 0), ("pair_random", 1), ("three_step", 1),
    ]  # fmt: skip
    lines = (tmp_path / "cells.jsonl").read_text()
    (tmp_path / "cells.jsonl").write_text(lines[:-100])
    ran: list[Cell] = []
    real = PairingPlan.run_cell

    def noting(self: PairingPlan, cell: Cell, data: PairingSet) -> dict[str, Any]:
        ran.append(cell)
        return real(self, cell, data)

    monkeypatch.setattr(PairingPlan, "run_cell", noting)
    again = run([DATA], plan, tmp_path, jobs=1)
    assert [(cell.arm, cell.seed) for cell in ran] == [("three_step", 1)]
    assert list(map(timeless, again.cells)) == list(map(timeless, first.cells))
    run([DATA], replace(plan, arms=["three_step", "pair_mix"]), tmp_path, jobs=1)
    assert {cell.arm for cell in ran[1:]} == {"pair_mix"}
    run([replace(DATA, batch_size=12)], plan, tmp_path, jobs=1)
    assert len(ran) == 1 + 2 + 4


def test_parallel_replays_are_those_of_one_process(tmp_path: Path) -> None:
    plan = PairingPlan(["three_step"], scenarios=("plain", "no_start"), seeds=1)
    alone = run([DATA], plan, tmp_path / "one", jobs=1)
    both = run([DATA], plan, tmp_path / "two", jobs=2)
    assert list(map(timeless, alone.cells)) == list(map(timeless, both.cells))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenarios": ("text_blank",)}, "text_blank"),
        ({"seeds": 0}, "seeds"),
        ({"first_seed": -1}, "first_seed"),
        ({"arms": ["nonesuch"]}, "nonesuch"),
        ({"arms": ["three_step:nope=1"]}, "nope"),
        ({"arms": ["pair_random>three_step"]}, "random for all"),
        ({"audit_share": 1.5}, "1.5"),
    ],
)
def test_impossible_plans_are_refused_before_anything_runs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        PairingPlan(**{"arms": ["pair_random"], **change})


def test_a_strategy_that_classifies_is_left_out_with_the_reason(tmp_path: Path) -> None:
    outcome = run([DATA], PairingPlan(["margin"], seeds=1), tmp_path, jobs=1)
    assert {cell["arm"] for cell in outcome.cells} == {"pair_random"}
    assert [(left.what, bool(left.why)) for left in outcome.unsuited] == [("margin", True)]


def test_a_set_that_is_too_small_is_left_out_with_the_reason(tmp_path: Path) -> None:
    for wrong, words in ((replace(DATA, pool=70), "too few"), (replace(DATA, budget=60), "--budget")):
        outcome = run([wrong, tiny("other")], PairingPlan([], seeds=1), tmp_path, jobs=1)
        assert [cell["dataset"] for cell in outcome.cells] == ["other"]
        [left] = outcome.unsuited
        assert left.dataset == "tiny" and words in left.why


def test_all_arms_are_all_pair_strategies_and_each_is_named_once() -> None:
    assert {arm.partition(":")[0] for arm in all_pair_arms()} == set(strategy_names(pairs=True))
    assert set(usual_pair_arms()) <= set(all_pair_arms())
    assert len(set(all_pair_arms())) == len(all_pair_arms())


# -- results ------------------------------------------------------------------------------------------------------


def test_results_are_told_by_recall_and_by_the_score_of_couples(tmp_path: Path) -> None:
    plan = PairingPlan(["three_step"], seeds=3)
    done = compare(run([tiny("couples", couples=True), DATA], plan, tmp_path, jobs=1).cells)
    with_couples, plain = done
    for one in done:
        areas = {arm: np.array(own.areas["recall_1"]) for arm, own in one.arms.items()}
        gap = 100 * (areas["three_step"] - areas["pair_random"])
        found = one.difference("three_step")
        assert found.mean == pytest.approx(gap.mean(), abs=0.02)
        assert found.error == pytest.approx(gap.std(ddof=1) / np.sqrt(3), abs=0.02)
        assert str(found) in pairing_table(one)
    assert str(with_couples.difference("three_step", measure="group")) in pairing_table(with_couples)
    assert "final group" in pairing_table(with_couples) and "final group" not in pairing_table(plain)
    assert "questions" in report(done) and "classes" not in report(done)
    assert "`three_step`" in candidates_needed(done)
    gained = plain.arms["three_step"].last["pairs"]
    assert f"| {gained:.0f}; " in pairs_gained([plain]) and f"| {gained:.0f} |" in pairing_table(plain)
    text = pairing_tables(done)
    assert "| arm | couples | mean |" in text and "| arm | couples | tiny | mean |" in text
    assert "uneven" not in text
    assert "| arm | tiny uneven | mean |" in pairing_tables([*done, replace(plain, scenario="uneven")])
    outside = replace(plain, scenario="plain_outside")
    apart = pairing_tables([plain, outside])
    assert "| arm | tiny | mean |" in apart and "| arm | tiny plain outside | mean |" in apart
    document = tmp_path / "doc.md"
    document.write_text(f"a\n{PAIRING_BEGIN}\n{PAIRING_END}\nb\n")
    put_into(document, text, (PAIRING_BEGIN, PAIRING_END))
    assert document.read_text() == f"a\n{PAIRING_BEGIN}\n{text}\n{PAIRING_END}\nb\n"


def simulate(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["simulate", "--task", "pairing", *map(str, arguments)])


def test_the_command_writes_figures_table_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def named_set(name: str, cache: Path, encoder: str) -> PairingSet:
        asked.append(name)
        return tiny(name, couples=name == "twins")

    monkeypatch.setattr(pair_sets, "named_pairing_set", named_set)
    given = ["-d", "fluent57", "-d", "twins", "-s", "three_step margin", "--seeds", "2", "--jobs", "1"]
    result = simulate(*given, "--first-seed", "4", "--budget", "16", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert asked == ["fluent57", "twins"]
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(c["task"], c["dataset"], c["n_labels"]) for c in content["comparisons"]] == [
        ("pairing", "fluent57", [8, 16]), ("pairing", "twins", [8, 16]),
    ]  # fmt: skip
    assert all(c["arms"]["three_step"]["seeds"] == [4, 5] for c in content["comparisons"])
    assert content["plan"]["audit_share"] == 0.1 and content["sets"]["twins"]["couples"] == 40
    assert "margin is left out" in result.output and "| `three_step` |" in (tmp_path / "report.md").read_text()
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_the_command_refuses_what_pairing_has_not(tmp_path: Path) -> None:
    for wrong in (["--project", "1"], ["--split", "random"]):
        result = simulate(*wrong, "--out", tmp_path)
        assert result.exit_code == 2 and "--task pairing" in result.output
    result = CliRunner().invoke(app, ["simulate", "--task", "juggling", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "juggling" in result.output


def test_a_finished_replay_is_known_by_the_options_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("small", "plain", "grouped", "pair_margin", 0)
    keys = [
        PairingPlan(["pair_margin"]).key(cell, DATA),
        PairingPlan(["pair_margin"], audit_share=0.5).key(cell, DATA),
    ]
    strategy = create_strategy("pair_margin")
    monkeypatch.setattr(type(strategy), "__repr__", lambda self: "PairMargin(with another default)")
    keys.append(PairingPlan(["pair_margin"]).key(cell, DATA))
    assert len(set(keys)) == len(keys)
