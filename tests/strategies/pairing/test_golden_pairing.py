"""Queries as a float64 brute-force reference chooses them (unaligned.md section 9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.strategies import Pairs, create_strategy
from backend.strategies.kernels.best_matches import best_matches
from backend.strategies.pairing import MODALITIES
from backend.strategies.pairing.spaces import Space

GOLDEN = Path(__file__).parents[2] / "golden"
SELECT = sorted(path.stem.removeprefix("unaligned_select_") for path in GOLDEN.glob("unaligned_select_*.npz"))
RULES = {"raw": "formula1"}


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"unaligned_{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def all_of(arrays) -> dict[str, np.ndarray]:
    return {m: np.ones(len(array), dtype=bool) for m, array in zip(MODALITIES, arrays, strict=True)}


def test_every_case_of_the_reference_is_here() -> None:
    assert {"basic", "ties", "cold", "uneven", "short", "many_to_one", "relative_euclid"} <= set(SELECT)


@pytest.mark.parametrize("case", SELECT)
def test_three_steps_are_those_of_the_reference(case: str) -> None:
    g = load(f"select_{case}")
    pairs = Pairs(
        {"image": g["img"], "text": g["txt"]},
        {"image": g["jimg"], "text": g["jtxt"]},
        np.stack([g["lab_img"], g["lab_txt"]], axis=1),
        all_of((g["img"], g["txt"])),
        bool(g["one_to_one"]),
    )
    rule = str(g["rule"])
    options = {"space": "unimodal", "distance": str(g["metric"]), "rule": RULES.get(rule, rule)}
    strategy = create_strategy("three_step", core_size=int(g["BC"]), **options)
    found = strategy.select(pairs, int(g["B"]), np.random.default_rng(0), candidates=2)
    assert found.modality == MODALITIES[int(g["modality"])]
    for name in ("coreset", "guess", "runner"):
        np.testing.assert_array_equal(found.parts[name], g[name], err_msg=name)
    for name in ("radii", "cover", "margin"):
        np.testing.assert_allclose(found.parts[name], g[name], atol=1e-5, err_msg=name)
    assert found.items(found.modality).tolist() == g["picks"].tolist()
    place = {int(row): i for i, row in enumerate(g["coreset"])}
    for query in found.queries:
        best = [g["guess"][place[query.item]], g["runner"][place[query.item]]]
        assert query.candidates.tolist() == best
    # The core-set baseline is the same two steps.
    baseline = create_strategy("pair_coreset", **options).select(pairs, int(g["B"]), np.random.default_rng(0))
    assert baseline.items(found.modality).tolist() == g["coreset"][: int(g["B"])].tolist()


def test_five_rounds_with_answers_are_those_of_the_reference() -> None:
    g = load("rounds")
    joint = {"image": g["jimg"], "text": g["jtxt"]}
    known = np.stack([g["lab_img"], g["lab_txt"]], axis=1)
    strategy = create_strategy("three_step", core_size=int(g["BC"]))
    asked: tuple[str, ...] = ()
    for number in range(int(g["rounds"])):
        pairs = Pairs(joint, joint, known, all_of(joint.values()), rounds_asked=asked)
        found = strategy.select(pairs, int(g["B"]), np.random.default_rng(0))
        assert found.modality == MODALITIES[int(g["modality"][number])]
        np.testing.assert_allclose(found.parts["radii"], g["radii"][number], atol=1e-5)
        np.testing.assert_array_equal(found.parts["coreset"], g["coreset"][number])
        picks = found.items(found.modality)
        np.testing.assert_array_equal(picks, g["picks"][number])
        partners = answers(picks, g["pair_of_txt"], found.modality)
        np.testing.assert_array_equal(partners, g["partner"][number])
        known = np.concatenate([known, columns(found.modality, picks, partners)])
        asked = (*asked, found.modality)


def test_the_two_best_of_three_hundred_are_those_of_the_reference() -> None:
    g = load("top2")
    queries = Space((g["query"],)).rows(slice(None))
    rows, scores = best_matches(queries, Space((g["cand"],)), 2, np.zeros(len(g["cand"])))
    np.testing.assert_array_equal(rows, np.stack([g["best"], g["second"]], axis=1))
    np.testing.assert_allclose(scores, np.stack([g["s1"], g["s2"]], axis=1), atol=1e-5)
    np.testing.assert_allclose(scores[:, 0] - scores[:, 1], g["margin"], atol=1e-5)


def answers(items: np.ndarray, pair_of_txt: np.ndarray, modality: str) -> np.ndarray:
    return pair_of_txt[items] if modality == "text" else np.argsort(pair_of_txt)[items]


def columns(modality: str, items: np.ndarray, partners: np.ndarray) -> np.ndarray:
    both = (items, partners) if modality == "image" else (partners, items)
    return np.stack(both, axis=1)
