"""What every registered strategy must do. A new strategy is tested here by being registered."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import backend.strategies
from backend.errors import (
    InvalidOption,
    PoolInvalid,
    PoolTooLarge,
    StrategyUnsuited,
    UnknownOption,
    UnknownStrategy,
)
from backend.strategies import Pool, create_strategy, describe, strategy_names
from backend.strategies.base import NEEDS, Strategy
from backend.strategies.explain import COMMON
from backend.strategies.registry import strategy_class

ALL = strategy_names()
# Files of the package that hold no strategy; every other one must be registered.
INFRASTRUCTURE = {"__init__", "base", "explain", "pool", "registry"}
# Files of what any strategy can wear: strategies themselves, asked for by ``create_strategy`` and not by name.
WORN = {"audit", "class_balance"}
DRESSES = {
    "pcb": {"balance": "pcb"},
    "tail first": {"balance": "tail_first"},
    "audited": {"audit_share": 0.4},
    "pcb, audited": {"balance": "pcb", "audit_share": 0.4},
}

# What is promised here hangs on no network being trained to the end.
QUICK = {name: {"steps": 10} for name in ("ascmr", "coregcn", "uncertain_gcn")}

every_strategy = pytest.mark.parametrize("name", ALL)
SHARED_SPACE = [name for name in ALL if "shared_space" in describe(name).needs]
SINGLE_LABEL = [name for name in ALL if "single_label" in describe(name).needs]


def project(name: str, **facts):
    """What ``check`` is told of a project that suits the strategy, but for ``facts``."""
    usual = {"multi_label": False, "n_classes": 5, "modalities": ("image", "text")}
    return {**usual, "shared_space": name in SHARED_SPACE, **facts}


def pick(name: str, pool: Pool, k: int, seed: int = 0, **options):
    return create_strategy(name, **QUICK.get(name, {}), **options).select(pool, k, np.random.default_rng(seed))


def assert_sound(selection, pool: Pool, expected: int, *, dressed: bool = False) -> None:
    """The promises of ``Selection`` that hold whatever the strategy and the pool."""
    picks = selection.indices
    assert picks.dtype.kind == "i"
    assert len(picks) == len(set(picks.tolist())) == expected
    assert not pool.labelled[picks].any()
    assert selection.utilities.shape == (len(pool),)
    assert np.isfinite(selection.utilities).all()
    for part, values in selection.parts.items():
        assert values.shape == (expected,), part
        # What only the strategy could tell is NaN at picks that its dress made.
        assert np.isfinite(values).all() or (dressed and part not in COMMON), part
    for part in {"uncertainty", "novelty", "disagreement", "missing"} & set(selection.parts):
        assert ((selection.parts[part] >= 0) & (selection.parts[part] <= 1)).all(), part
    queue = selection.queue(pool.labelled, len(pool))
    assert sorted(queue.tolist()) == pool.unlabelled.tolist()
    np.testing.assert_array_equal(queue[:expected], picks)
    # Utilities alone give the same queue: picks first, in pick order, labelled rows last.
    by_utility = np.argsort(-selection.utilities, kind="stable")
    np.testing.assert_array_equal(by_utility[: len(queue)], queue)


def drop(modality: str, rows: slice):
    def change(features):
        features = {name: matrix.copy() for name, matrix in features.items()}
        features[modality][rows] = 0
        return features

    return change


POOLS = {
    "plain": {},
    "no labels": {"n_labelled": 0},
    "one label": {"n_labelled": 1},
    "one class seen": {"relabel": lambda y: np.where(y >= 0, 2, -1)},
    "two classes": {"n_classes": 2},
    "many classes, few seen": {"n_classes": 30, "n_labelled": 8},
    "multi-label": {"multi_label": True},
    "multi-label, one class never, one always": {
        "multi_label": True,
        "relabel": lambda y: np.where(y < 0, y, np.concatenate([0 * y[:, :1], 0 * y[:, 1:2] + 1, y[:, 2:]], axis=1)),
    },
    "multi-label without labels": {"multi_label": True, "n_labelled": 0},
    "some images missing": {"change": drop("image", slice(0, 40))},
    "all texts missing": {"change": drop("text", slice(None))},
    "some records empty": {"change": lambda f: drop("text", slice(0, 30))(drop("image", slice(0, 30))(f))},
    "all records empty": {"change": lambda f: drop("text", slice(None))(drop("image", slice(None))(f))},
    "every record four times": {"change": lambda f: {m: np.repeat(z[::4], 4, axis=0) for m, z in f.items()}},
    "all records alike": {"change": lambda f: {m: np.repeat(z[:1], len(z), axis=0) for m, z in f.items()}},
    "half precision": {"change": lambda f: {m: z.astype(np.float16) for m, z in f.items()}},
    "three modalities": {"modalities": ("audio", "image", "text")},
}


@pytest.fixture(scope="module")
def pool_of(make_pool):
    """The pool of a case, built once: that strategies leave it alone is a test of its own."""
    return functools.cache(lambda case: make_pool(**POOLS[case]))


def suited(name: str, case: str) -> bool:
    """Whether the strategy is defined for the pool of the case."""
    return not (POOLS[case].get("multi_label") and name in SINGLE_LABEL)


def every_strategy_with(cases):
    """Every strategy with each of the cases that it is defined for."""
    return pytest.mark.parametrize(("name", "case"), [(n, c) for n in ALL for c in cases if suited(n, c)])


@every_strategy_with(POOLS)
@pytest.mark.parametrize("k", [1, 7])
def test_selection_is_sound(name, case, k, pool_of):
    pool = pool_of(case)
    assert_sound(pick(name, pool, k), pool, k)


@every_strategy_with(["plain", "no labels", "one class seen", "multi-label"])
@pytest.mark.parametrize("dress", DRESSES)
def test_selection_is_sound_in_every_dress(name, case, dress, pool_of):
    if POOLS[case].get("multi_label") and DRESSES[dress].get("balance") == "pcb":
        with pytest.raises(StrategyUnsuited, match="'pcb' is defined for single-choice"):
            create_strategy(name, **DRESSES[dress]).check(**project(name, multi_label=True))
        return
    pool = pool_of(case)
    selection = pick(name, pool, 9, **DRESSES[dress])
    assert_sound(selection, pool, 9, dressed=True)
    assert ("control" in selection.parts) == ("audit_share" in DRESSES[dress])
    if "control" in selection.parts:
        assert selection.parts["control"].sum() in (3, 4)


@every_strategy_with(["plain", "no labels", "all records alike", "multi-label"])
def test_asking_for_all_or_more_returns_what_there_is(name, case, make_pool):
    pool = make_pool(n=60, **{"n_labelled": 20, **POOLS[case]})
    free = int((~pool.labelled).sum())
    for k in (free, free + 1, 10 * free):
        assert_sound(pick(name, pool, k), pool, free)


@every_strategy
def test_nothing_asked_or_nothing_left_gives_an_empty_selection(name, make_pool):
    pool = make_pool()
    assert len(pick(name, pool, 0).indices) == 0
    full = make_pool(n=30, n_labelled=30)
    assert len(pick(name, full, 5).indices) == 0
    with pytest.raises(InvalidOption, match="batch_size is -1"):
        pick(name, pool, -1)


@every_strategy
@pytest.mark.parametrize("case", ["plain", "no labels", "every record four times", "one class seen"])
def test_same_seed_same_picks(name, case, make_pool):
    pool = make_pool(n=300, **POOLS[case])
    first, again = pick(name, pool, 20, seed=3), pick(name, pool, 20, seed=3)
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.utilities, again.utilities)


@every_strategy_with(["plain", "no labels", "multi-label"])
def test_selecting_changes_nothing_in_the_pool(name, case, make_pool):
    pool = make_pool(**POOLS[case])
    arrays = [*pool.features.values(), pool.labelled, pool.labels]
    if pool.probabilities is not None:
        arrays.append(pool.probabilities)
    before = [array.copy() for array in arrays]
    pick(name, pool, 9)
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


@every_strategy
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_mapped_features_give_the_same_picks(name, dtype, make_pool, tmp_path):
    def to_dtype(features):
        return {m: z.astype(dtype) for m, z in features.items()}

    def to_disk(features):
        for m, z in to_dtype(features).items():
            np.save(tmp_path / f"{m}.npy", z)
        return {m: np.load(tmp_path / f"{m}.npy", mmap_mode="r") for m in features}

    np.testing.assert_array_equal(
        pick(name, make_pool(change=to_disk), 12).indices, pick(name, make_pool(change=to_dtype), 12).indices
    )


@pytest.mark.parametrize(
    ("name", "multi_label"), [(n, False) for n in ALL] + [(n, True) for n in ALL if n not in SINGLE_LABEL]
)
def test_probabilities_of_exactly_0_and_1_are_no_special_case(name, multi_label, make_pool):
    pool = make_pool(n_classes=3, multi_label=multi_label)
    sure = np.eye(3, dtype=np.float32)[np.arange(len(pool)) % 3]
    for p in (sure, np.concatenate([sure[:60], pool.probabilities[60:]])):
        certain = Pool(
            pool.features,
            pool.labelled,
            pool.labels,
            3,
            multi_label,
            p,
            dict.fromkeys(pool.coalition_probabilities, p),
            dict.fromkeys(pool.modalities, p),
            pool.head,
        )
        assert_sound(pick(name, certain, 30), certain, 30)


@every_strategy
def test_one_modality_is_enough_unless_declared_otherwise(name, make_pool):
    pool = make_pool(modalities=("text",))
    strategy = create_strategy(name)
    if name in SHARED_SPACE:
        with pytest.raises(StrategyUnsuited, match="compares image and text in one space"):
            pick(name, pool, 7)
        return
    if "two_modalities" in describe(name).needs:
        with pytest.raises(StrategyUnsuited, match="compares modalities"):
            strategy.check(**project(name, modalities=("text",)))
    else:
        strategy.check(**project(name, modalities=("text",)))
    assert_sound(pick(name, pool, 7), pool, 7)


@every_strategy
def test_a_project_without_a_common_space_is_refused_exactly_where_one_is_needed(name, make_pool):
    strategy = create_strategy(name)
    if name not in SHARED_SPACE:
        strategy.check(**project(name, shared_space=True))
        return
    with pytest.raises(StrategyUnsuited, match="template 'cross_modal_retrieval'"):
        strategy.check(**project(name, shared_space=False))
    uneven = {"change": lambda f: {**f, "text": f["text"][:, :7]}}
    with pytest.raises(StrategyUnsuited, match="template 'cross_modal_retrieval'"):
        pick(name, make_pool(**uneven), 5)
    # Before the first label no model has made a space, and the first batch is chosen on the vectors as they are.
    first = make_pool(n_labelled=0, **uneven)
    assert_sound(pick(name, first, 5), first, 5)


@every_strategy
def test_a_project_of_one_class_is_refused_where_predictions_are_needed(name):
    strategy = create_strategy(name)
    if "probabilities" in describe(name).needs:
        with pytest.raises(StrategyUnsuited, match="1 class"):
            strategy.check(**project(name, n_classes=1))
    else:
        strategy.check(**project(name, n_classes=1))
    strategy.check(**project(name, n_classes=2))


@every_strategy
def test_multi_label_is_refused_exactly_where_declared(name, pool_of):
    strategy = create_strategy(name)
    if name in SINGLE_LABEL:
        for case in ("multi-label", "multi-label without labels"):
            with pytest.raises(StrategyUnsuited, match="single-choice"):
                pick(name, pool_of(case), 5)
    if "single_label" in describe(name).needs:
        with pytest.raises(StrategyUnsuited, match="single-choice"):
            strategy.check(**project(name, multi_label=True))
    else:
        strategy.check(**project(name, multi_label=True))


@every_strategy
def test_a_pool_above_the_declared_size_is_refused_when_configured(name):
    most = describe(name).max_pool
    strategy = create_strategy(name)
    strategy.check(**project(name), pool_size=1_000_000 if most is None else most)
    if most is not None:
        with pytest.raises(PoolTooLarge, match=rf"'{name}' takes {most:,} .* has {most + 1:,}; use 'auto'"):
            strategy.check(**project(name), pool_size=most + 1)


@every_strategy
@pytest.mark.parametrize("n_labelled", [0, 20])
def test_a_pool_above_the_declared_size_is_refused_when_selecting(name, n_labelled, make_pool, monkeypatch):
    pool = make_pool(n_labelled=n_labelled)
    monkeypatch.setattr(strategy_class(name), "max_pool", len(pool))
    assert_sound(pick(name, pool, 5), pool, 5)
    monkeypatch.setattr(strategy_class(name), "max_pool", len(pool) - 1)
    with pytest.raises(PoolTooLarge, match=f"'{name}' takes 119 .* has 120"):
        pick(name, pool, 5)


@pytest.mark.parametrize("name", ["auto", "badge", "margin"])
def test_what_a_refusal_recommends_takes_any_number_of_records(name):
    assert describe(name).max_pool is None


@every_strategy
def test_labels_without_a_head_are_an_error_where_predictions_are_needed(name, make_pool):
    pool = make_pool()
    headless = Pool(pool.features, pool.labelled, pool.labels, pool.n_classes)
    if "probabilities" in describe(name).needs:
        with pytest.raises(PoolInvalid, match="probabilities is None"):
            pick(name, headless, 5)
    else:
        assert_sound(pick(name, headless, 5), headless, 5)


@pytest.mark.parametrize("name", [name for name in ALL if "probabilities" in describe(name).needs])
def test_cold_start_is_delegated_to_the_chosen_strategy(name, make_pool):
    pool = make_pool(n_labelled=0)
    for start in ("kmeans_cold_start", "random"):
        np.testing.assert_array_equal(pick(name, pool, 9, cold_start=start).indices, pick(start, pool, 9).indices)


@every_strategy
def test_reasons_can_be_told_for_each_pick(name, make_pool):
    parts = pick(name, make_pool(change=drop("image", slice(0, 40))), 100).parts
    assert {"uncertainty", "novelty", "disagreement", "missing"} <= set(parts)
    assert set(np.unique(parts["disagreement"])) == {0.0, 1.0}
    assert parts["missing"].sum() > 0
    # A record that lacks a modality has nothing to disagree with.
    assert not parts["disagreement"][parts["missing"] == 1].any()


@every_strategy
def test_names_paper_needs_options_and_complexity_are_stated(name):
    kind, info = strategy_class(name), describe(name)
    doc = inspect.getdoc(kind) or ""
    source = re.search(r"Source: .*(19|20)\d\d", doc, flags=re.DOTALL)
    assert source, f"{kind.__name__} must name its source with a year in its docstring"
    assert info.name == name
    assert info.title
    assert info.paper
    assert info.complexity.startswith("O(")
    assert info.needs <= NEEDS
    assert set(info.options) == set(info.option_help)
    assert all(info.option_help.values())


@every_strategy
def test_wrong_options_are_refused_when_configured(name):
    with pytest.raises(UnknownOption, match="has no option 'colour'"):
        create_strategy(name, colour=1)
    for option, default in describe(name).options.items():
        assert getattr(create_strategy(name, **{option: default}), option) == default
        for wrong in (None, [], "no such value", 7 if isinstance(default, bool) else True):
            with pytest.raises(InvalidOption, match=option):
                create_strategy(name, **{option: wrong})


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(UnknownStrategy, match=r"'magic'.*auto.*badge.*random"):
        create_strategy("magic")


def test_every_file_of_the_package_is_registered_or_infrastructure():
    folder = Path(backend.strategies.__file__).parent
    registered = {Path(inspect.getfile(strategy_class(name))).stem for name in ALL}
    assert {path.stem for path in folder.glob("*.py")} == registered | INFRASTRUCTURE | WORN


def test_every_concrete_strategy_class_is_registered():
    for path in Path(backend.strategies.__file__).parent.glob("*.py"):
        if path.stem in WORN:
            continue
        module = importlib.import_module(f"backend.strategies.{path.stem}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Strategy) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                assert strategy_class(kind.name) is kind


@every_strategy
def test_the_documentation_names_every_strategy_option_and_default(name):
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text
    for option, default in describe(name).options.items():
        assert re.search(rf"\| `{option}` \| `?{re.escape(str(default))}`? \|", text), option
