"""What every registered pair strategy must do. A new one is tested here by being registered."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

import backend.strategies.pairing
from backend.errors import InvalidOption, PoolTooLarge, StrategyUnsuited, UnknownOption
from backend.strategies import Pairs, PairStrategy, create_strategy, describe, strategy_names
from backend.strategies.base import NEEDS
from backend.strategies.pairing import MODALITIES, WHY, other
from backend.strategies.registry import strategy_class

ALL = strategy_names(pairs=True)
# Files of the package that hold no strategy of their own; every other one must be registered.
INFRASTRUCTURE = {
    "__init__",
    "base",
    "comparing",
    "conformal",
    "covering",
    "matching",
    "pairs",
    "refusals",
    "spaces",
    "streams",
}
WORN = {"audit"}
PROJECT = {"multi_label": False, "n_classes": 0, "modalities": ("image", "text")}

every_strategy = pytest.mark.parametrize("name", ALL)


def ask(name: str, pairs: Pairs, k: int, seed: int = 0, candidates: int = 8, **options):
    return create_strategy(name, **options).select(pairs, k, np.random.default_rng(seed), candidates=candidates)


def assert_sound(selection, pairs: Pairs, k: int, candidates: int, *, dressed: bool = False) -> None:
    """The promises of ``PairSelection`` that hold whatever the strategy and the pools."""
    asked = [(query.modality, query.item) for query in selection.queries]
    assert len(asked) == len(set(asked)) <= k
    left = {m: int(pairs.open(m).sum()) for m in MODALITIES}
    if not dressed:
        assert {query.modality for query in selection.queries} <= {selection.modality}
        assert len(asked) == (min(k, left[selection.modality]) if selection.modality else 0)
    assert asked or k == 0 or not any(left.values())
    for query in selection.queries:
        assert pairs.open(query.modality)[query.item]
        allowed = pairs.candidates(other(query.modality))
        assert len(query.candidates) == min(candidates, int(allowed.sum()))
        assert len(set(query.candidates.tolist())) == len(query.candidates)
        assert allowed[query.candidates].all()
        assert query.why in WHY
        assert all(np.isfinite(value) for value in query.figures.values())
        json.dumps(dict(query.figures), allow_nan=False)
        assert ("control" in query.figures) == dressed
        assert (query.why == "control") == (query.figures.get("control") == 1.0)
        for figure in ("cover_percentile", "margin_percentile"):
            assert 0.0 <= query.figures.get(figure, 0.0) <= 1.0


def with_(**changes):
    return lambda arguments: {**arguments, **changes}


def rows(change):
    """The same change of features and joint rows."""
    return lambda a: {
        **a,
        "features": {m: change(m, x) for m, x in a["features"].items()},
        "joint": {m: change(m, x) for m, x in a["joint"].items()},
    }


def closed(modality: str, open_: slice = slice(0, 0)):
    def change(arguments):
        askable = {m: mask.copy() for m, mask in arguments["askable"].items()}
        askable[modality][:] = False
        askable[modality][open_] = True
        return {**arguments, "askable": askable}

    return change


CASES = {
    "plain": {},
    "nothing paired": {"known": 0},
    "one pair": {"known": 1},
    "many to many": {"change": with_(one_to_one=False, known=np.array([[0, 0], [0, 1], [3, 1]]))},
    "many images": {"n": 120, "m": 9},
    "one text left": {"n": 30, "m": 9},
    "no text left": {"n": 30, "m": 8},
    "all paired": {"n": 8, "m": 8},
    "texts may not be asked about": {"change": closed("text")},
    "two images may be asked about": {"change": closed("image", slice(10, 12))},
    "few may be offered": {"change": with_(offered={"text": np.arange(50) % 20 == 19})},
    "none may be offered": {
        "change": with_(offered={m: np.zeros(k, bool) for m, k in (("image", 60), ("text", 50))})
    },
    "some have no vector": {"change": rows(lambda m, x: np.where(np.arange(len(x))[:, None] % 3 == 0, 0, x))},
    "all alike": {"change": rows(lambda m, x: np.repeat(x[:1], len(x), axis=0))},
    "each four times": {"change": rows(lambda m, x: x[np.arange(len(x)) // 4 * 4])},
    "half precision": {"change": rows(lambda m, x: x.astype(np.float16))},
    "no vector at all": {"change": rows(lambda m, x: np.zeros_like(x))},
    "later round": {"change": with_(rounds_asked=("image", "image", "text"))},
}


@pytest.fixture(scope="module")
def pairs_of(make_pairs):
    return functools.cache(lambda case: make_pairs(**CASES[case]))


@every_strategy
@pytest.mark.parametrize("case", CASES)
def test_queries_are_sound(name, case, pairs_of):
    pairs = pairs_of(case)
    for k, candidates in ((1, 1), (7, 8), (500, 3)):
        assert_sound(ask(name, pairs, k, candidates=candidates), pairs, k, candidates)


@every_strategy
@pytest.mark.parametrize("case", CASES)
def test_queries_are_sound_in_the_audit_dress(name, case, pairs_of):
    pairs = pairs_of(case)
    found = ask(name, pairs, 10, audit_share=0.4)
    assert_sound(found, pairs, 10, 8, dressed=True)
    left = min(10, sum(int(pairs.open(m).sum()) for m in MODALITIES))
    controls = sum(query.figures["control"] for query in found.queries)
    assert abs(controls - 0.4 * left) < 1.0


@every_strategy
def test_a_batch_of_one_is_the_strategys_or_a_control(name, pairs_of):
    pairs = pairs_of("plain")
    found = [ask(name, pairs, 1, seed=seed, audit_share=0.5) for seed in range(12)]
    for selection in found:
        assert_sound(selection, pairs, 1, 8, dressed=True)
    assert {query.figures["control"] for selection in found for query in selection.queries} == {0.0, 1.0}


@every_strategy
def test_options_that_are_choices_are_sound_at_every_choice(name, pairs_of):
    pairs = pairs_of("plain")
    for spec in strategy_class(name).__dataclass_fields__.values():
        values = list(spec.metadata.get("choices", ()))
        values += [True, False] if isinstance(spec.default, bool) else []
        for value in values:
            assert_sound(ask(name, pairs, 7, **{spec.name: value}), pairs, 7, 8)


@every_strategy
@pytest.mark.parametrize("direction", MODALITIES)
def test_only_what_the_project_can_ask_is_asked(name, direction, pairs_of):
    for case in ("plain", "nothing paired"):
        for share in (0.0, 0.5):
            found = ask(name, pairs_of(case), 9, directions=direction, audit_share=share)
            assert {query.modality for query in found.queries} == {direction}


@every_strategy
def test_nothing_asked_gives_an_empty_selection(name, pairs_of):
    assert ask(name, pairs_of("plain"), 0).queries == ()
    assert ask(name, pairs_of("all paired"), 5).queries == ()
    with pytest.raises(InvalidOption, match="batch_size is -1"):
        ask(name, pairs_of("plain"), -1)
    with pytest.raises(InvalidOption, match="candidates is 0"):
        ask(name, pairs_of("plain"), 5, candidates=0)


@every_strategy
@pytest.mark.parametrize("case", ["plain", "nothing paired", "each four times"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_same_seed_same_queries(name, case, share, make_pairs):
    pairs = make_pairs(n=300, m=200, **{**CASES[case], **({"known": 0} if case == "nothing paired" else {})})
    first, again = (ask(name, pairs, 12, seed=5, audit_share=share) for _ in range(2))
    for a, b in zip(first.queries, again.queries, strict=True):
        assert (a.modality, a.item, a.figures, a.why) == (b.modality, b.item, b.figures, b.why)
        np.testing.assert_array_equal(a.candidates, b.candidates)


@every_strategy
def test_choosing_changes_nothing_in_the_pairs(name, make_pairs):
    def frozen(arguments):
        for arrays in (arguments["features"], arguments["joint"], arguments["askable"]):
            for array in arrays.values():
                array.flags.writeable = False
        arguments["known"].flags.writeable = False
        return arguments

    ask(name, make_pairs(change=frozen), 9, audit_share=0.3)


@every_strategy
def test_vectors_on_disk_give_the_same_queries(name, make_pairs, tmp_path):
    def stored(arguments):
        for kind in ("features", "joint"):
            for modality, matrix in arguments[kind].items():
                np.save(tmp_path / f"{kind}_{modality}.npy", matrix)
        load = {
            kind: {m: np.load(tmp_path / f"{kind}_{m}.npy", mmap_mode="r") for m in MODALITIES}
            for kind in ("features", "joint")
        }
        return {**arguments, **load}

    here, there = (ask(name, make_pairs(change=change), 9) for change in (lambda a: a, stored))
    assert [(q.modality, q.item) for q in here.queries] == [(q.modality, q.item) for q in there.queries]


@pytest.mark.parametrize(
    ("name", "known"),
    [("three_step", 0), ("pair_coreset", 0), ("pair_mix", 0)]
    + [(name, 8) for name in ("three_step", "pair_coreset", "pair_mix", "hard_negative")],
)
def test_the_order_of_the_rows_does_not_matter_where_nothing_is_drawn(name, known, make_pairs):
    order = {m: np.random.default_rng(3).permutation(k) for m, k in (("image", 60), ("text", 50))}

    def shuffled(a):
        place = {m: np.argsort(o) for m, o in order.items()}
        return {
            **{kind: {m: x[order[m]] for m, x in a[kind].items()} for kind in ("features", "joint", "askable")},
            "known": np.stack([place[m][a["known"][:, c]] for c, m in enumerate(MODALITIES)], axis=1),
        }

    plain = ask(name, make_pairs(known=known), 9)
    moved = ask(name, make_pairs(known=known, change=shuffled), 9)
    assert moved.modality == plain.modality
    assert [order[q.modality][q.item] for q in moved.queries] == [q.item for q in plain.queries]
    for a, b in zip(moved.queries, plain.queries, strict=True):
        assert order[other(a.modality)][a.candidates].tolist() == b.candidates.tolist()


@every_strategy
def test_a_project_that_classifies_is_refused_and_one_that_pairs_is_not(name):
    strategy = create_strategy(name, audit_share=0.1)
    strategy.check(**PROJECT, pairs=True)
    with pytest.raises(StrategyUnsuited, match=rf"'{name}' pairs two pools .* use 'auto'"):
        strategy.check(**PROJECT)
    with pytest.raises(StrategyUnsuited, match="add a pool of text items"):
        strategy.check(multi_label=False, n_classes=0, modalities=("image",), pairs=True)
    with pytest.raises(StrategyUnsuited, match="serves classes"):
        create_strategy(name, balance="pcb")


@pytest.mark.parametrize("name", strategy_names())
def test_a_strategy_that_classifies_is_refused_where_pools_are_paired(name):
    with pytest.raises(StrategyUnsuited, match=f"'{name}' .* pairs two pools; use 'pair_likely'"):
        create_strategy(name).check(multi_label=False, n_classes=5, modalities=("image", "text"), pairs=True)


@every_strategy
def test_pools_above_the_declared_size_are_refused(name, make_pairs, monkeypatch):
    strategy = create_strategy(name)
    strategy.check(**PROJECT, pairs=True, pool_size=1_000_000)
    monkeypatch.setattr(strategy_class(name), "max_pool", 59)
    with pytest.raises(PoolTooLarge, match=rf"'{name}' takes 59 .* has 60; use 'pair_likely'"):
        ask(name, make_pairs(), 5)


@every_strategy
def test_names_paper_needs_options_and_complexity_are_stated(name):
    kind, info = strategy_class(name), describe(name)
    assert issubclass(kind, PairStrategy)
    doc = inspect.getdoc(kind) or ""
    assert re.search(r"Source: .*(19|20)\d\d", doc, flags=re.DOTALL)
    assert "ours" in doc or name in ("pair_coreset",), "what is not the paper's must be called ours"
    assert info.name == name
    assert info.title
    assert info.paper
    assert info.needs == {"pairs"} <= NEEDS
    assert info.complexity
    assert set(info.options) == set(info.option_help)
    assert all(info.option_help.values())


@every_strategy
def test_wrong_options_are_refused_when_configured(name):
    with pytest.raises(UnknownOption, match="has no option 'colour'"):
        create_strategy(name, colour=1)
    with pytest.raises(InvalidOption, match="audit_share is 2"):
        create_strategy(name, audit_share=2)
    for option, default in describe(name).options.items():
        assert getattr(create_strategy(name, **{option: default}), option) == default
        for wrong in (None, [], "no such value", 7 if isinstance(default, bool) else True):
            with pytest.raises(InvalidOption, match=option):
                create_strategy(name, **{option: wrong})


def test_every_file_of_the_package_is_registered_or_infrastructure():
    folder = Path(backend.strategies.pairing.__file__).parent
    registered = {Path(inspect.getfile(strategy_class(name))).stem for name in ALL}
    assert {path.stem for path in folder.glob("*.py")} == registered | INFRASTRUCTURE | WORN


def test_every_concrete_pair_strategy_is_registered():
    for path in Path(backend.strategies.pairing.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"backend.strategies.pairing.{path.stem}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            own = issubclass(kind, PairStrategy) and kind.__module__ == module.__name__ and path.stem not in WORN
            if own and not inspect.isabstract(kind):
                assert strategy_class(kind.name) is kind


@every_strategy
def test_the_documentation_names_every_strategy_option_and_default(name):
    text = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text
    for option, default in describe(name).options.items():
        rows_of = rf"^\| [^|]*(`{name}`|all that pair)[^|]* \| `{option}` \| `?{re.escape(str(default))}`? \|"
        assert re.search(rows_of, text, flags=re.MULTILINE), option
