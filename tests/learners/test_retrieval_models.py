"""What every retrieval model must do: the light head and the authors' network over the same cases."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import (
    FeaturesMismatch,
    HeadStateInvalid,
    InvalidRetrievalOption,
    LabelsInvalid,
    UnknownRetrievalModel,
)
from backend.learners.retrieval import (
    create_retrieval_model,
    load_retrieval_model,
    retrieval_model_names,
    two_way_score,
)
from backend.learners.retrieval.pair_space import pair_space
from backend.strategies import Pool, create_strategy

NETWORK = {"width": 24, "layers": 2, "text_hidden": 12, "image_hidden": 12, "learning_rate": 5e-3, "epochs": 15}
MODELS = {"two_branch": {}, "ascmr_network": NETWORK}
# Where it is not asked how well a model trains.
BRIEF = {"two_branch": {}, "ascmr_network": {"epochs": 2}}
# Nothing is learned from rows without a label.
LABELLED_ONLY = {"two_branch": {"pairs": "labelled"}, "ascmr_network": {}}

every_model = pytest.mark.parametrize("model", MODELS)


def recipe(model: str, **options):
    return create_retrieval_model(model, **{**MODELS[model], **options})


def pairs(n=160, n_classes=4, *, widths=(16, 11), spread=1.0, second=0.25, seed=0):
    """Unit rows of two modalities around class centres, and one or two labels a pair."""
    rng = np.random.default_rng(seed)
    labels = np.eye(n_classes, dtype=np.int8)[rng.integers(0, n_classes, n)]
    more = rng.random(n) < second
    labels[more, rng.integers(0, n_classes, int(more.sum()))] = 1
    features = {}
    for name, width in zip(("image", "text"), widths, strict=True):
        rows = labels @ rng.normal(size=(n_classes, width)) + spread * rng.normal(size=(n, width))
        features[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return features, labels


def hidden(labels, shown):
    """Labels with all but the first ``shown`` rows unlabelled."""
    return np.where(np.arange(len(labels))[:, None] < shown, labels, -1)


def without(features, modality, rows):
    features = {name: block.copy() for name, block in features.items()}
    features[modality][rows] = 0
    return features


def assert_sound(model, features, n_classes):
    """The promises of an embedding and its head, whatever the data."""
    embedded = model.embed(features)
    assert embedded.keys() == features.keys()
    for name, rows in embedded.items():
        assert rows.shape == (len(features[name]), model.width)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
        length = np.linalg.norm(rows, axis=1)
        there = features[name].any(axis=1)
        assert (length[~there] == 0).all()
        assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
    head = model.head
    assert head.fused.keys() == features.keys()
    for p in (
        head.probabilities(embedded),
        head.probabilities(embedded, calibrated=False),
        head.coalition_probabilities(embedded, frozenset({"text"})),
        head.coalition_probabilities(embedded, frozenset()),
        head.unimodal_probabilities(embedded, "image"),
    ):
        assert p.shape == (len(features["image"]), n_classes)
        assert ((p >= 0) & (p <= 1)).all()
    return embedded


CASES = {
    "plain": lambda f, y: (f, y),
    "most rows unlabelled": lambda f, y: (f, hidden(y, 40)),
    "no labelled row": lambda f, y: (f, hidden(y, 0)),
    "one labelled row": lambda f, y: (f, hidden(y, 1)),
    "two labelled rows": lambda f, y: (f, hidden(y, 2)),
    "rows without any class": lambda f, y: (f, np.where(np.arange(len(y))[:, None] % 3 == 0, 0, y)),
    "no row has a class": lambda f, y: (f, 0 * y),
    "one class never, one always": lambda f, y: (f, np.where([[True, False, False, False]], 0, y) | [[0, 1, 0, 0]]),
    "one class only": lambda f, y: (f, y[:, :1] | 1),
    "some images absent": lambda f, y: (without(f, "image", slice(0, 60)), y),
    "all texts absent": lambda f, y: (without(f, "text", slice(None)), y),
    "no pair is whole": lambda f, y: (without(without(f, "text", slice(0, 80)), "image", slice(80, None)), y),
    "some records empty": lambda f, y: (without(without(f, "text", slice(0, 9)), "image", slice(0, 9)), y),
    "half precision": lambda f, y: ({m: rows.astype(np.float16) for m, rows in f.items()}, y),
    "all records alike": lambda f, y: ({m: np.repeat(rows[:1], len(rows), axis=0) for m, rows in f.items()}, y),
}


@every_model
@pytest.mark.parametrize("case", CASES)
def test_embedding_and_head_are_sound(model, case):
    features, labels = CASES[case](*pairs())
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    assert_sound(trained, features, labels.shape[1])


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    n_classes=st.integers(1, 7),
    shown=st.integers(0, 40),
    absent=st.floats(0, 1),
    class_width=st.integers(1, 8),
    pair_share=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_the_light_head_is_sound_for_any_labels_and_any_gaps(
    seed, n, n_classes, shown, absent, class_width, pair_share
):
    features, labels = pairs(n, n_classes, seed=seed)
    rng = np.random.default_rng(seed)
    labels[rng.random(n) < 0.2] = 0
    for rows in features.values():
        rows[rng.random(n) < absent] = 0
    options = {"class_width": class_width, "pair_share": pair_share, "pair_width": 3}
    trained = create_retrieval_model("two_branch", **options).fit(features, hidden(labels, shown), seed=seed)
    assert_sound(trained, features, n_classes)


@every_model
def test_training_retrieves_better_than_the_vectors_and_than_no_training(model):
    features, labels = pairs(n=400, spread=1.2)
    unseen = slice(200, None)
    trained = recipe(model).fit(features, hidden(labels, 200))
    untrained = recipe(model, **LABELLED_ONLY[model]).fit(features, hidden(labels, 0))
    score = {
        name: two_way_score({m: rows[unseen] for m, rows in each.embed(features).items()}, labels[unseen]).mean
        for name, each in (("trained", trained), ("untrained", untrained))
    }
    chance = two_way_score({m: np.random.default_rng(0).normal(size=(200, 8)) for m in features}, labels[unseen]).mean
    assert score["trained"] > score["untrained"] + 0.1
    assert score["trained"] > chance + 0.2


@every_model
def test_the_head_predicts_the_classes_of_pairs_not_trained_on(model):
    features, labels = pairs(n=400, spread=0.7, second=0.0)
    trained = recipe(model).fit(features, hidden(labels, 200))
    embedded = {m: rows[200:] for m, rows in trained.embed(features).items()}
    truth = labels[200:].argmax(axis=1)
    assert (trained.head.probabilities(embedded).argmax(axis=1) == truth).mean() > 0.9
    assert (trained.head.unimodal_probabilities(embedded, "text").argmax(axis=1) == truth).mean() > 0.75


@every_model
def test_logits_are_linear_in_the_cosines_with_unit_prototypes(model):
    features, labels = pairs()
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    head, embedded = trained.head, trained.embed(features)
    length = np.linalg.norm(head.fused["image"], axis=1, keepdims=True)
    np.testing.assert_allclose(length, length.max(), rtol=1e-5)
    np.testing.assert_array_equal(head.fused["image"], head.fused["text"])
    prototypes = head.fused["image"] / length
    mean = (embedded["image"] @ prototypes.T + embedded["text"] @ prototypes.T) / 2
    logits = 2 * length.max() * mean + head.fused_bias
    np.testing.assert_allclose(head.probabilities(embedded), 1 / (1 + np.exp(-logits)), atol=1e-5)


@every_model
def test_same_data_and_seed_same_model(model):
    features, labels = pairs()
    first, second = (recipe(model, **BRIEF[model]).fit(features, labels, seed=3).state() for _ in range(2))
    assert first[1] == second[1]
    for key, array in first[0].items():
        np.testing.assert_array_equal(array, second[0][key], err_msg=key)


@every_model
def test_unlabelled_rows_do_not_train(model):
    features, labels = pairs()
    part = {m: rows[:90] for m, rows in features.items()}
    options = {**BRIEF[model], **LABELLED_ONLY[model]}
    arrays = [
        recipe(model, **options).fit(part, labels[:90]).state()[0],
        recipe(model, **options).fit(features, hidden(labels, 90)).state()[0],
        recipe(model, **options).fit(features, labels, labelled=np.arange(160) < 90).state()[0],
    ]
    for key, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][key], err_msg=key)
        np.testing.assert_array_equal(array, arrays[2][key], err_msg=key)


@every_model
def test_chunks_and_maps_on_disk_do_not_change_rows(model, tmp_path, monkeypatch):
    features, labels = pairs()
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    whole = trained.embed({m: rows.astype(np.float16) for m, rows in features.items()})
    for name, rows in features.items():
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float16))
    mapped = {m: np.load(tmp_path / f"{m}.npy", mmap_mode="r") for m in features}
    monkeypatch.setattr(f"{type(trained).__module__}.CHUNK_ROWS", 7)
    for name, rows in trained.embed(mapped).items():
        np.testing.assert_allclose(rows, whole[name], atol=1e-6)


@every_model
def test_one_modality_alone_can_be_embedded(model):
    features, labels = pairs()
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    alone = trained.embed({"text": features["text"]})
    assert list(alone) == ["text"]
    np.testing.assert_array_equal(alone["text"], trained.embed(features)["text"])


@every_model
@pytest.mark.parametrize("strategy", ["auto", "badge", "bmmal", "coreset", "entropy"])
def test_registered_strategies_serve_as_two_branch_baselines(model, strategy):
    features, labels = pairs()
    shown = hidden(labels, 40)
    labelled = np.arange(160) < 40
    trained = recipe(model, **BRIEF[model]).fit(features, shown)
    pool = Pool.from_head(trained.embed(features), shown, labelled, trained.head, n_classes=4, multi_label=True)
    picks = create_strategy(strategy).select(pool, 12, np.random.default_rng(0)).indices
    assert len(set(picks.tolist())) == 12
    assert not labelled[picks].any()


@every_model
def test_a_saved_model_answers_bit_for_bit_the_same(model, tmp_path):
    import safetensors.numpy as safetensors

    features, labels = pairs()
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    arrays, metadata = trained.state()
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())
    path = tmp_path / "model.safetensors"
    safetensors.save_file(arrays, path, metadata)
    back = load_retrieval_model(safetensors.load_file(path), metadata)
    assert type(back) is type(trained)
    for name, rows in trained.embed(features).items():
        np.testing.assert_array_equal(back.embed(features)[name], rows)
    embedded = trained.embed(features)
    np.testing.assert_array_equal(back.head.probabilities(embedded), trained.head.probabilities(embedded))


@every_model
def test_a_foreign_or_damaged_state_is_refused(model):
    features, labels = pairs(60)
    arrays, metadata = recipe(model, **BRIEF[model]).fit(features, labels).state()
    with pytest.raises(HeadStateInvalid, match="kind is 'forest'"):
        load_retrieval_model(arrays, {**metadata, "kind": "forest"})
    with pytest.raises(HeadStateInvalid, match="kind, format"):
        load_retrieval_model(arrays, {**metadata, "format": "0"})
    for lost in [key for key in arrays if not key.startswith("head.")]:
        with pytest.raises(HeadStateInvalid, match="incomplete or damaged"):
            load_retrieval_model({key: array for key, array in arrays.items() if key != lost}, metadata)


@every_model
def test_wrong_input_is_refused_with_the_field_and_the_remedy(model):
    features, labels = pairs(60)
    trained = recipe(model, **BRIEF[model]).fit(features, labels)
    with pytest.raises(FeaturesMismatch, match="'audio' is not one of"):
        trained.embed({"audio": features["image"]})
    with pytest.raises(FeaturesMismatch, match=r"features\['image'\] has shape \(60, 11\)"):
        trained.embed({"image": features["text"]})
    with pytest.raises(LabelsInvalid, match=r"shape \(60,\)"):
        recipe(model).fit(features, labels[:, 0])
    with pytest.raises(LabelsInvalid, match="use 0, 1 or -1"):
        recipe(model).fit(features, 2 * labels)
    with pytest.raises(FeaturesMismatch, match="labels have 59 rows"):
        recipe(model).fit(features, labels[:59])
    broken = {**features, "image": features["image"].copy()}
    broken["image"][7, 3] = np.nan
    with pytest.raises(FeaturesMismatch, match=r"features\['image'\] row 7 holds NaN"):
        recipe(model).fit(broken, labels)


def test_unknown_names_and_options_are_refused_with_what_there_is():
    assert retrieval_model_names() == ["ascmr_network", "two_branch"]
    with pytest.raises(
        UnknownRetrievalModel, match="'three_branch' does not exist; choose one of ascmr_network, two"
    ):
        create_retrieval_model("three_branch")
    with pytest.raises(InvalidRetrievalOption, match="no option 'widht'; it knows"):
        create_retrieval_model("two_branch", widht=3)
    with pytest.raises(InvalidRetrievalOption, match="pair_share is 2; it must lie between"):
        create_retrieval_model("two_branch", pair_share=2)
    with pytest.raises(InvalidRetrievalOption, match="encoder is 'cnn'; choose one of"):
        create_retrieval_model("ascmr_network", encoder="cnn")
    with pytest.raises(InvalidRetrievalOption, match="layers is 'five'; it must be int"):
        create_retrieval_model("ascmr_network", layers="five")


def test_importing_the_models_does_not_import_torch():
    code = "import sys, backend.learners.retrieval; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the light head ----------------------------------------------------------------------------------------------


def test_the_cosine_of_two_halves_is_the_probability_of_a_common_class():
    features, labels = pairs()
    trained = create_retrieval_model("two_branch", pair_share=0.0).fit(features, labels)
    embedded = trained.embed(features)
    share = {m: rows[:, : labels.shape[1]] for m, rows in embedded.items()}
    for rows in share.values():
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(embedded["image"] @ embedded["text"].T, share["image"] @ share["text"].T, atol=1e-5)


def test_the_shared_width_holds_any_number_of_classes():
    features, labels = pairs(n=300, n_classes=40)
    trained = create_retrieval_model("two_branch", class_width=16, pair_width=5).fit(features, labels)
    assert trained.width == 16 + 5 + 2
    embedded = assert_sound(trained, features, 40)
    raw = two_way_score({m: np.random.default_rng(1).normal(size=(300, 8)) for m in features}, labels).mean
    assert two_way_score(embedded, labels).mean > raw + 0.1


def test_records_with_one_half_train_the_branch_of_that_half():
    features, labels = pairs(n=300, spread=1.5)
    image_only = without(features, "text", slice(10, 150))
    trained = create_retrieval_model("two_branch").fit(image_only, hidden(labels, 150))
    fewer = create_retrieval_model("two_branch").fit(features, hidden(labels, 10))
    unseen = labels[150:]

    def right(model):
        rows = model.embed(features)["image"][150:]
        p = model.head.unimodal_probabilities({"image": rows}, "image")
        return (np.take_along_axis(unseen, p.argmax(axis=1)[:, None], axis=1) == 1).mean()

    assert right(trained) > right(fewer)


def test_unlabelled_pairs_shape_the_pair_space_unless_told_not_to():
    features, labels = pairs(n=300, spread=1.5)
    few = hidden(labels, 12)

    def trained(**options):
        return create_retrieval_model("two_branch", **options).fit(features, few)

    def score(model):
        rows = model.embed(features)
        return two_way_score({m: block[12:] for m, block in rows.items()}, np.eye(288)).mean

    told, untold = trained(), trained(pairs="labelled")
    # Each image's only relevant text is its own.
    assert score(told) > 1.2 * score(untold)
    for name in ("image", "text"):
        np.testing.assert_array_equal(told.branches[name].weights, untold.branches[name].weights)


def test_the_pair_space_of_the_same_pairs_is_computed_once(monkeypatch):
    features, labels = pairs()
    asked = []

    def counted(rows, width):
        asked.append(width)
        return pair_space(rows, width)

    monkeypatch.setattr("backend.learners.retrieval.pair_space.pair_space", counted)
    first, second, other = (
        create_retrieval_model("two_branch", pair_width=width).fit(features, hidden(labels, shown))
        for width, shown in ((5, 20), (5, 40), (4, 40))
    )
    assert asked == [5, 4]
    np.testing.assert_array_equal(first.branches["text"].directions, second.branches["text"].directions)
    assert other.branches["text"].directions.shape[1] == 4
    changed = {**features, "text": features["text"][::-1]}
    assert not np.array_equal(
        create_retrieval_model("two_branch", pair_width=4).fit(changed, labels).branches["image"].directions,
        other.branches["image"].directions,
    )


def test_rounds_of_a_large_pool_draw_the_same_pairs(monkeypatch):
    monkeypatch.setattr("backend.learners.retrieval.two_branch.MOST_PAIRS", 100)
    features, labels = pairs()
    rounds = [
        create_retrieval_model("two_branch", pair_width=4).fit(features, hidden(labels, shown), seed=seed)
        for shown, seed in ((40, 1), (80, 2))
    ]
    for name in features:
        first, second = (trained.branches[name].directions for trained in rounds)
        np.testing.assert_array_equal(first, second)


def test_one_fold_calibrates_where_labels_are_many(monkeypatch):
    features, labels = pairs(n=1000, spread=2.0)
    shown = hidden(labels, 600)
    plain = create_retrieval_model("two_branch").fit(features, shown)
    monkeypatch.setattr("backend.learners.retrieval.two_branch.ONE_FOLD_FROM", 500)
    brief = create_retrieval_model("two_branch").fit(features, shown)
    embedded = plain.embed(features)
    np.testing.assert_allclose(brief.embed(features)["text"], embedded["text"], atol=0.01)
    np.testing.assert_allclose(brief.head.probabilities(embedded), plain.head.probabilities(embedded), atol=0.1)


def test_pairs_without_a_class_are_told_from_those_with_one():
    features, labels = pairs(n=400, spread=0.5, second=0.0)
    labels[:, 3] = 0
    trained = create_retrieval_model("two_branch").fit(features, hidden(labels, 200))
    p = trained.head.probabilities(trained.embed(features))[200:]
    none = ~labels[200:].any(axis=1)
    assert p[none].max(axis=1).mean() < 0.3 < 0.7 < p[~none].max(axis=1).mean()


def test_probabilities_of_the_head_agree_with_frequencies():
    features, labels = pairs(n=3000, spread=2.0)
    trained = create_retrieval_model("two_branch").fit(features, hidden(labels, 400))
    p = trained.head.probabilities(trained.embed(features))[400:]
    truth = labels[400:]
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8)):
        inside = (p >= low) & (p < high)
        assert abs(p[inside].mean() - truth[inside].mean()) < 0.1
