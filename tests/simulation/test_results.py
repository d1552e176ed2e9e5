"""Figures from replays: hand-computed differences, files read as they were written, sentences that are true."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import errors
from backend.simulation.plots import draw
from backend.simulation.results import Comparison, Difference, compare, read_results, write_results
from backend.simulation.tables import advice, against, comparison_table, in_all, matrix, overview, report, savings
from benchmarks.strategy_tables import BEGIN, END, pictures, put_into, tables

COUNTS = [10, 20, 40]


def cell(arm: str, seed: int, accuracy: list[float], **place: str) -> dict[str, Any]:
    rounds = len(COUNTS)
    measures: dict[str, list[float | None]] = {
        "accuracy": list(accuracy),
        "macro_f1": [value / 2 for value in accuracy],
        "temperature": [None] * (rounds - 1) + [1.5],
    }
    once = ("nll_calibrated", "ece_calibrated", "alone_image", "alone_text")
    measures |= {name: [None] * (rounds - 1) + [0.25] for name in once}
    each = (
        "nll", "ece", "dominance", "contribution_image", "contribution_text", "seconds_select", "seconds_fit",
        "accuracy_image", "accuracy_text",
    )  # fmt: skip
    measures |= {name: [0.5] * rounds for name in each}
    where = {"dataset": "set", "scenario": "plain", "split": "random", **place}
    return {
        **where, "arm": arm, "seed": seed, "batch_size": 10, "classes": 3, "pool": 90, "scored_on": 30,
        "n_labels": COUNTS, "measures": measures,
    }  # fmt: skip


def areas(values: list[float]) -> float:
    return ((values[0] + values[1]) / 2 * 10 + (values[1] + values[2]) / 2 * 20) / 30


RANDOM = [[0.2, 0.4, 0.6], [0.4, 0.5, 0.6], [0.3, 0.6, 0.6]]
BETTER = [[0.3, 0.6, 0.8], [0.5, 0.6, 0.7], [0.3, 0.6, 0.6]]


def comparison(**arms: list[list[float]]) -> Comparison:
    cells = [
        cell(arm.replace("__", ">"), seed, values)
        for arm, curves in {"random": RANDOM, **arms}.items()
        for seed, values in enumerate(curves)
    ]
    [one] = compare(cells)
    return one


def test_areas_differences_and_errors_are_those_worked_out_by_hand() -> None:
    one = comparison(better=BETTER)
    gaps = [100 * (areas(better) - areas(random)) for better, random in zip(BETTER, RANDOM, strict=True)]
    found = one.difference("better")
    assert found.mean == pytest.approx(np.mean(gaps), abs=0.01)
    assert found.error == pytest.approx(np.std(gaps, ddof=1) / np.sqrt(3), abs=0.01)
    assert (found.ahead, found.seeds) == (2, 3)
    back = one.difference("random", "better")
    assert (back.mean, back.error) == (-found.mean, found.error)
    assert one.difference("better", measure="macro_f1").mean == pytest.approx(found.mean / 2, abs=0.01)
    assert str(found) == f"{found.mean:+.1f} ± {found.error:.1f}"
    assert str(Difference(1.0, float("nan"), 1, 1)) == "+1.0"


def test_labels_saved_are_those_until_randoms_end_is_reached() -> None:
    one = comparison(better=BETTER)
    # Mean curves: random ends at 0.6, better reaches 0.6 at 20 of 40 labels.
    assert one.saved("better") == pytest.approx(0.5)
    assert one.saved("random") == 0.0


def test_differences_are_paired_over_the_seeds_both_have() -> None:
    cells = [cell("random", seed, values) for seed, values in enumerate(RANDOM)]
    cells += [cell("late", 2, BETTER[2]), cell("late", 1, BETTER[1]), cell("alien", 7, BETTER[0])]
    [one] = compare(cells)
    gaps = [100 * (areas(BETTER[s]) - areas(RANDOM[s])) for s in (1, 2)]
    assert one.difference("late").mean == pytest.approx(np.mean(gaps), abs=0.01)
    with pytest.raises(errors.ReplayInvalid, match="share no seed"):
        one.difference("alien")


def test_a_ranking_goes_by_the_difference_to_random() -> None:
    one = comparison(better=BETTER, worse=[[0.1, 0.2, 0.3]] * 3)
    assert one.ranking() == ["better", "random", "worse"]


def test_results_are_read_as_they_were_written_and_files_are_put_together(tmp_path: Path) -> None:
    first, second = comparison(better=BETTER), comparison(other=BETTER)
    for name, one in (("a", first), ("b", second)):
        write_results(tmp_path / name, [one], {"plan": {"seeds": 3}})
    [read] = read_results([tmp_path / "a"])
    assert read == first
    [both] = read_results([tmp_path / "a", tmp_path / "b"])
    assert set(both.arms) == {"random", "better", "other"}
    assert json.loads((tmp_path / "a").read_text())["plan"] == {"seeds": 3}


def test_seeds_of_one_arm_in_two_files_make_what_one_run_of_all_of_them_makes(tmp_path: Path) -> None:
    cells = [cell("random", seed, values) for seed, values in enumerate(RANDOM)]
    cells += [cell("better", seed, values) for seed, values in enumerate(BETTER)]
    for name, some in (("a", cells[:2] + cells[3:5]), ("b", [cells[2], cells[5]])):
        write_results(tmp_path / name, compare(some), {})
    [joined], [whole] = read_results([tmp_path / "a", tmp_path / "b"]), compare(cells)
    for arm in ("random", "better"):
        found, wanted = joined.arms[arm], whole.arms[arm]
        assert found.seeds == wanted.seeds
        for kind in ("areas", "mean", "spread", "last", "average"):
            for name, value in getattr(wanted, kind).items():
                assert getattr(found, kind)[name] == pytest.approx(value, abs=2e-4), (arm, kind, name)
    assert joined.difference("better") == whole.difference("better")


def test_an_arm_that_was_run_again_on_the_same_seeds_replaces_the_former(tmp_path: Path) -> None:
    for name, values in (("a", RANDOM), ("b", BETTER)):
        write_results(tmp_path / name, [comparison(other=values)], {})
    [read] = read_results([tmp_path / "a", tmp_path / "b"])
    assert read.arms["other"] == comparison(other=BETTER).arms["other"]


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    for number, text in enumerate(["{", "[]", '{"format": "other", "protocol": 1, "comparisons": []}']):
        path = tmp_path / str(number)
        path.write_text(text)
        with pytest.raises(errors.ReplayInvalid, match="no results"):
            read_results([path])


def test_the_tables_hold_every_arm_and_the_hand_computed_figures() -> None:
    one = comparison(better=BETTER, random__badge=RANDOM)
    found = one.difference("better")
    assert f"| `better` | {100 * np.mean([areas(v) for v in BETTER]):.1f} | {found} | 2/3 |" in comparison_table(one)
    rows = matrix(one).splitlines()
    assert len(rows) == 2 + 3 and all(f"`{arm}`" in rows[0] for arm in one.arms)
    assert str(one.difference("random>badge", "better")) in matrix(one)
    other = comparison(better=BETTER)
    assert f"| `better` | {found} (3) | {found} (3) | {found.mean:+.1f} |" in overview([one, other])
    assert "| `random>badge` | +0.0 ± 0.0 (3) | - | - |" in overview([one, other])
    assert f"| `random` | {found} | {found} | {found.mean:+.1f} |" in against([one, other], "better")
    assert "| `better` | 50%; 70.0 | 50% |" in savings([other])
    assert "- remark" in report([one], ["remark"])


def test_over_all_places_clear_leads_and_clear_losses_are_counted() -> None:
    above, below = ([[value + step for value in curve] for curve in RANDOM] for step in (0.1, -0.1))
    plain = comparison(auto=BETTER, above=above, below=below)
    noisy = replace(plain, scenario="noisy", arms={"random": plain.arms["random"], "auto": plain.arms["above"]})
    lines = [line.strip("| ").split(" | ") for line in in_all([plain, noisy], "auto").splitlines()[2:]]
    assert [line[0] for line in lines] == ["`auto`", "`random`", "`above`", "`below`"]
    nothing = "0 (0)"
    assert lines[0][1:6] == ["+9.7", "+9.4", "1 (1)", nothing, "2"]
    assert lines[2][1:] == ["+10.0", "+10.0", "1 (1)", nothing, "1", "-0.6", nothing, nothing]
    # 19.4 is beyond two standard errors, and not beyond the 4.3 that three seeds ask for.
    assert lines[3][1:] == ["-10.0", "-10.0", nothing, "1 (1)", "1", "+19.4", nothing, nothing]


def test_a_difference_is_clear_beyond_the_quantile_of_student_for_its_seeds() -> None:
    # Two-sided 95%: 2.262 standard errors with ten seeds, 2.776 with five.
    for seeds, bound in ((10, 2.262), (5, 2.776)):
        for sign in (1, -1):
            assert Difference(sign * (bound + 0.01), 1.0, 0, seeds).sign() == sign
            assert Difference(sign * (bound - 0.01), 1.0, 0, seeds).sign() == 0
    assert Difference(9.0, float("nan"), 1, 1).sign() == 0
    assert Difference(0.0, 0.0, 0, 10).sign() == 0


def test_the_corrected_error_grows_with_the_seeds_and_with_the_share_held_out() -> None:
    # Variance s² (1/10 + 1/3) instead of s² / 10: 2.08 times the error.
    for gap, sign in ((2.262 * 2.09, 1), (2.262 * 2.07, 0)):
        assert Difference(gap, 1.0, 10, 10, held_out=1 / 3).sign(corrected=True) == sign
        assert Difference(gap, 1.0, 10, 10, held_out=1 / 3).sign() == 1
        assert Difference(gap, 1.0, 10, 10).sign(corrected=True) == 1


def test_what_a_difference_is_corrected_by_is_what_was_held_out_of_the_pool() -> None:
    one = replace(comparison(better=BETTER), pool=90, scored_on=30)
    assert one.difference("better").held_out == pytest.approx(1 / 3)


def test_advice_names_the_best_and_what_cannot_be_told_from_it() -> None:
    clear = [[value + gain for value in curve] for curve, gain in zip(RANDOM, (0.1, 0.11, 0.12), strict=True)]
    near = [[value + gain for value in curve] for curve, gain in zip(RANDOM, (0.13, 0.1, 0.09), strict=True)]
    said = " ".join(advice(comparison(random__badge=clear, auto=near)))
    assert "'badge' (after a first batch by 'random') served these labels best" in said
    assert "Not to be told apart from it at this number of seeds: 'auto'" in said
    assert "within the noise: leave it" in said
    far = " ".join(advice(comparison(random__badge=clear, auto=RANDOM)))
    assert "clearly ahead of the default" in far and "Not to be told" not in far


def test_advice_does_not_praise_what_chance_explains() -> None:
    noise = [[value + gain for value in curve] for curve, gain in zip(RANDOM, (0.1, -0.08, 0.01), strict=True)]
    assert "no strategy was clearly better than random" in advice(comparison(auto=noise))[0]


def test_a_picture_is_drawn_for_each_comparison(tmp_path: Path) -> None:
    one = comparison(better=BETTER)
    [path] = draw([one], tmp_path)
    assert path.name == "set-plain-random.png" and path.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_the_documents_are_of_plain_replays_and_bear_the_name_of_the_set(tmp_path: Path) -> None:
    noisy = compare([cell("random", 0, RANDOM[0], scenario="noisy")])
    assert pictures([comparison(better=BETTER), *noisy], ["random"], tmp_path) == [tmp_path / "replay_set.png"]
    assert (tmp_path / "replay_set.png").stat().st_size > 5_000
    assert [path.name for path in tmp_path.iterdir()] == ["replay_set.png"]


def test_without_matplotlib_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(errors.PlotUnavailable, match="pip install"):
        draw([comparison(better=BETTER)], tmp_path)


def test_the_tables_of_the_documents_are_put_between_the_marks(tmp_path: Path) -> None:
    scenario = compare([cell("random", 0, RANDOM[0], scenario="noisy"), cell("auto", 0, BETTER[0], scenario="noisy")])
    text = tables([comparison(auto=BETTER), *scenario], "auto")
    assert "**`auto` minus the others, paired**" in text and "set, scenarios" in text and "rouped" not in text
    document = tmp_path / "doc.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        put_into(document, text)
        assert document.read_text() == f"before\n{BEGIN}\n{text}\n{END}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(errors.ReplayInvalid, match="lacks the lines"):
        put_into(document, text)
