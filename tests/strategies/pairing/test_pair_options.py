"""What each option of the pair strategies does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.errors import PairsInvalid
from backend.strategies import Pairs, create_strategy
from backend.strategies.pairing import MODALITIES
from backend.strategies.pairing.covering import chosen_modality
from backend.strategies.pairing.matching import Matching


def ask(name, pairs, k, seed=0, **options):
    return create_strategy(name, **options).select(pairs, k, np.random.default_rng(seed))


def everything(arrays):
    return {m: np.ones(len(array), dtype=bool) for m, array in arrays.items()}


def test_rounds_alternate_from_the_images_on_and_a_tie_goes_to_the_images():
    assert chosen_modality("alternate", {"image": 0.0, "text": 1.0}, (), 0.0) == "image"
    assert chosen_modality("alternate", {"image": 1.0, "text": 0.0}, ("image",), 0.0) == "text"
    assert chosen_modality("alternate", {"image": 0.0, "text": 1.0}, ("image", "text"), 0.0) == "image"
    assert chosen_modality("formula1", {"image": 1.0, "text": 1.0}, (), 0.0) == "image"
    assert chosen_modality("formula1", {"text": 0.1}, (), 0.5) == "text"


@pytest.mark.parametrize("floor", [0.0, 0.2, 0.5])
def test_each_modality_has_its_floor_of_the_rounds_and_no_more_than_needed(floor):
    asked: tuple[str, ...] = ()
    for number in range(1, 31):
        asked = (*asked, chosen_modality("formula1", {"image": 2.0, "text": 1.0}, asked, floor))
        assert asked.count("text") == int(floor * number + 1e-9)


def test_the_relative_rule_forgives_a_modality_its_scale(make_pairs):
    def stretched(arguments):
        far = {"image": arguments["joint"]["image"] * 50.0, "text": arguments["joint"]["text"]}
        return {**arguments, "features": far, "joint": arguments["joint"]}

    options = {"space": "unimodal", "distance": "euclidean"}
    plain, wide = make_pairs(), make_pairs(change=stretched)
    assert ask("three_step", wide, 5, **options).modality == "image"
    relative = [ask("three_step", p, 5, rule="relative", **options).parts["radii"] for p in (plain, wide)]
    assert relative[0][0] != relative[1][0], "features of the plain pairs are other vectors"
    cosine = ask("three_step", wide, 5, rule="relative", space="joint", distance="euclidean")
    same = ask("three_step", wide, 5, rule="relative", **options)
    np.testing.assert_allclose(cosine.parts["radii"], same.parts["radii"], rtol=1e-5)
    assert cosine.modality == same.modality


def test_the_core_set_is_of_the_size_asked_for(make_pairs):
    pairs = make_pairs()
    assert len(ask("three_step", pairs, 5).parts["coreset"]) == 20
    assert len(ask("three_step", pairs, 5, core_factor=2.0).parts["coreset"]) == 10
    assert len(ask("three_step", pairs, 5, core_size=7).parts["coreset"]) == 7
    assert len(ask("three_step", pairs, 5, core_size=2).parts["coreset"]) == 5
    whole = ask("three_step", pairs, 5, core_size=1000)
    assert len(whole.parts["coreset"]) == pairs.open(whole.modality).sum()
    margins = ask("pair_margin", pairs, 5, directions=whole.modality)
    assert set(margins.items(whole.modality)) == set(whole.items(whole.modality))


def test_spaces_look_at_different_vectors(make_pairs):
    pairs = make_pairs()
    core = {
        s: tuple(ask("pair_coreset", pairs, 9, space=s, directions="image").items("image"))
        for s in ("joint", "unimodal", "both")
    }
    assert len(set(core.values())) == 3
    swapped = Pairs(pairs.joint, pairs.joint, pairs.known, pairs.askable)
    for space in core:
        assert tuple(ask("pair_coreset", swapped, 9, space=space, directions="image").items("image")) == core["joint"]


def test_the_guard_leaves_out_a_lone_outlier_that_farthest_first_would_take(make_pairs):
    def with_outlier(arguments):
        image = arguments["features"]["image"].copy()
        image[:] = np.eye(1, image.shape[1], 0) + 0.05 * np.random.default_rng(0).normal(size=image.shape)
        image[40] = -image[0]
        return {**arguments, "features": {**arguments["features"], "image": image}}

    pairs = make_pairs(change=with_outlier)
    options = {"space": "unimodal", "directions": "image"}
    assert ask("pair_coreset", pairs, 5, **options).items("image")[0] == 40
    assert 40 not in ask("pair_coreset", pairs, 40, outlier_guard=True, **options).items("image")


def test_the_core_set_by_k_means_takes_dense_regions_and_not_outliers(make_pairs):
    def clusters(arguments):
        rng = np.random.default_rng(0)
        image = np.repeat(np.eye(6, 12), 10, axis=0) + 0.02 * rng.normal(size=(60, 12))
        return {**arguments, "features": {**arguments["features"], "image": image.astype(np.float32)}}

    pairs = make_pairs(known=0, change=clusters)
    found = ask("pair_coreset", pairs, 6, coreset="kmeans", space="unimodal", directions="image")
    assert sorted(found.items("image") // 10) == list(range(6))


def test_a_random_cold_start_is_used_while_nothing_is_paired_and_not_after(make_pairs):
    for name in ("three_step", "pair_coreset", "pair_mix"):
        cold, warm = make_pairs(known=0), make_pairs()
        drawn = ask(name, cold, 9, cold_start="random")
        assert {query.why for query in drawn.queries} == {"random"}
        assert [q.item for q in drawn.queries] == [q.item for q in ask("pair_random", cold, 9).queries]
        assert {query.why for query in ask(name, cold, 9).queries} <= {"uncovered", "narrow_margin"}
        later, other = ask(name, warm, 9, cold_start="random"), ask(name, warm, 9)
        assert [q.item for q in later.queries] == [q.item for q in other.queries]


def duplicates() -> Pairs:
    """Image 0 has 40 texts that are the same, and then one; image 1 two that differ by little."""
    axes = np.eye(5, dtype=np.float32)
    texts = np.concatenate(
        [np.repeat(axes[:1], 40, axis=0), [0.5 * axes[0] + axes[1]], [axes[2], axes[2] + 0.5 * axes[3]]]
    )
    images = np.stack([axes[0], axes[2] + 0.2 * axes[3]]).astype(np.float32)
    joint = {"image": images, "text": texts.astype(np.float32)}
    return Pairs(joint, joint, np.empty((0, 2), dtype=np.int64), everything(joint))


def test_near_duplicates_make_a_plain_margin_small_and_a_group_margin_not():
    pairs = duplicates()
    matching = Matching.of(pairs, "image")
    plain, group = (matching.best(np.arange(2), 2, margin=kind) for kind in ("plain", "group"))
    assert plain.margin[0] == 0.0
    assert plain.runner.tolist() == [1, 42]
    assert group.guess.tolist() == [0, 41]
    # The runner of the first image is the first text that is not like its best, behind 40 copies of that.
    assert group.runner.tolist() == [40, 42]
    np.testing.assert_allclose(group.margin[0], 1.0 - 0.5 / np.sqrt(1.25), rtol=1e-6)
    chosen = {
        kind: ask("three_step", pairs, 1, margin=kind, directions="image").items("image")
        for kind in ("plain", "group")
    }
    assert (chosen["plain"].tolist(), chosen["group"].tolist()) == ([0], [1])


def test_a_group_margin_without_a_second_group_is_infinite_and_asked_last():
    axes = np.eye(3, dtype=np.float32)
    joint = {"image": axes[:2], "text": np.repeat(axes[:1], 30, axis=0)}
    pairs = Pairs(joint, joint, np.empty((0, 2), dtype=np.int64), everything(joint))
    found = Matching.of(pairs, "image").best(np.arange(2), 2, margin="group")
    assert np.isinf(found.margin).all()
    assert found.runner.tolist() == [-1, -1]
    for query in ask("three_step", pairs, 2, margin="group", directions="image").queries:
        assert all(np.isfinite(value) for value in query.figures.values())


@pytest.mark.parametrize("kind", ["csls", "lse"])
def test_a_text_that_resembles_every_image_is_no_longer_everyones_guess(kind):
    rng = np.random.default_rng(0)
    images = np.abs(rng.normal(size=(200, 30))) + 0.3
    texts = images + 0.9 * rng.normal(size=images.shape)
    texts[0] = images.mean(axis=0)
    joint = {"image": images.astype(np.float32), "text": texts.astype(np.float32)}
    pairs = Pairs(joint, joint, np.empty((0, 2), dtype=np.int64), everything(joint))
    rows = np.arange(1, 200)

    def right(similarity: str) -> tuple[float, float]:
        found = Matching.of(pairs, "image", similarity, 0.05, rng).best(rows, 2)
        return float((found.guess == 0).mean()), float((found.guess == rows).mean())

    (plain_hub, plain_right), (hub, truth) = right("plain"), right(kind)
    assert plain_hub > 0.5 > hub
    assert truth > plain_right


def test_hard_negatives_are_what_resembles_a_counterpart_it_does_not_belong_to():
    axes = np.eye(4, dtype=np.float32)
    images = np.stack([axes[0], axes[1], axes[0] + 0.1 * axes[2], axes[3]])
    joint = {"image": images, "text": axes[[0, 1, 2]]}
    pairs = Pairs(joint, joint, np.array([[0, 0], [1, 1]]), everything(joint))
    found = ask("hard_negative", pairs, 2, directions="image")
    assert found.items("image").tolist() == [2, 3]
    cosine = 1.0 / np.sqrt(1.01)
    np.testing.assert_allclose(found.queries[0].figures["hinge"], cosine - 1.0 + 0.2, atol=1e-5)
    assert found.queries[1].figures["hinge"] == 0.0
    mean = ask("hard_negative", pairs, 2, directions="image", aggregate="mean", top=2)
    np.testing.assert_allclose(mean.queries[0].figures["hinge"], (cosine - 0.8) / 2, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_mixed_batch_holds_both_in_the_modality_of_the_three_steps(share, make_pairs):
    pairs = make_pairs(n=200, m=200)
    steps = ask("three_step", pairs, 20)
    hard = ask("hard_negative", pairs, 20, directions=steps.modality)
    found = ask("pair_mix", pairs, 20, hard_share=share)
    assert found.modality == steps.modality
    wanted = round(20 * share)
    items = found.items(steps.modality).tolist()
    assert set(hard.items(steps.modality)[:wanted]) <= set(items)
    rest = [item for item in steps.items(steps.modality).tolist() if item not in hard.items(steps.modality)[:wanted]]
    assert set(items) - set(hard.items(steps.modality)[:wanted].tolist()) == set(rest[: 20 - wanted])
    assert sum(query.why == "confusable" for query in found.queries) == wanted


def test_random_draws_keep_to_one_modality_and_reach_every_item_equally(make_pairs):
    pairs = make_pairs(n=14, m=10, known=4)
    counts = {m: np.zeros(pairs.size(m)) for m in MODALITIES}
    for seed in range(600):
        found = ask("pair_random", pairs, 2, seed=seed)
        counts[found.modality][found.items(found.modality)] += 1
    drawn = np.concatenate([counts[m][4:] for m in MODALITIES])
    assert not any(counts[m][:4].any() for m in MODALITIES)
    # 600 batches of two of 16 items: 75 each, of which a standard deviation is below 10.
    assert (np.abs(drawn - 75) < 45).all()


def test_controls_are_uniform_over_both_pools_and_do_not_depend_on_the_strategy(make_pairs):
    pairs = make_pairs(n=12, m=9, known=4)
    counts = {m: np.zeros(pairs.size(m)) for m in MODALITIES}
    for seed in range(250):
        drawn = [
            {
                (q.modality, q.item)
                for q in ask(name, pairs, 4, seed=seed, audit_share=0.5).queries
                if q.why == "control"
            }
            for name in ("three_step", "pair_random")
        ]
        assert drawn[0] == drawn[1]
        for modality, item in drawn[0]:
            counts[modality][item] += 1
    share = np.concatenate([counts[m][4:] for m in MODALITIES])
    assert share.sum() == 500
    assert (np.abs(share - 500 / 13) < 30).all()


def test_figures_tell_of_cover_margin_radii_and_candidates(make_pairs):
    pairs = make_pairs()
    found = ask("three_step", pairs, 6, audit_share=0.34)
    told = {"cover", "cover_percentile", "margin", "margin_percentile", "radius_image", "radius_text"}
    for query in found.queries:
        own = set() if query.why == "control" else told
        assert own | {"guess_similarity", "runner_similarity", "margin", "control"} <= set(query.figures)
        f = query.figures
        np.testing.assert_allclose(f["margin"], f["guess_similarity"] - f["runner_similarity"], atol=1e-9)


def test_pairs_say_what_is_wrong_with_them(make_pairs):
    def refused(match, **changes):
        with pytest.raises(PairsInvalid, match=match):
            make_pairs(change=lambda a: {**a, **changes})

    fine = make_pairs()
    refused("known pairs some image twice; settle the conflict", known=np.array([[0, 1], [0, 2]]))
    refused("known names text rows 50 to 50 of 50", known=np.array([[0, 50]]))
    refused(r"known is float64 \(2,\)", known=np.zeros(2))
    refused("features has the modalities", features={"image": fine.features["image"]})
    refused(
        "joint rows have 6 and 5 numbers", joint={"image": fine.joint["image"], "text": fine.joint["text"][:, :5]}
    )
    refused(r"joint\['image'\] has shape \(59, 6\)", joint={**fine.joint, "image": fine.joint["image"][:59]})
    refused(r"askable\['text'\] is int64", askable={**fine.askable, "text": np.ones(50, dtype=np.int64)})
    refused(r"offered has the modality 'audio'", offered={"audio": np.ones(50, dtype=bool)})
    refused(r"rounds_asked names \['audio'\]", rounds_asked=("audio",))


def test_who_is_most_likely_found_comes_first_and_refusals_move_it_back(make_pairs):
    pairs = make_pairs()
    chosen = ask("pair_likely", pairs, 5, similarity="plain", directions="image")
    rows = np.flatnonzero(pairs.open("image"))
    best = Matching.of(pairs, "image").best(rows, 2)
    expected = rows[np.argsort(-best.scores[:, 0], kind="stable")[:5]]
    assert chosen.items("image").tolist() == expected.tolist()
    assert all(0.0 <= query.figures["guess_percentile"] <= 1.0 for query in chosen.queries)
    # The item of the best guess has seen its most similar candidates in vain: what is left is less similar.
    first = int(expected[0])
    seen = Matching.of(pairs, "image").best(np.array([first]), 100).rows[0][:-1]
    again = ask(
        "pair_likely", replace(pairs, refused={"image": {first: seen}}), 5, similarity="plain", directions="image"
    )
    assert first not in again.items("image")


def test_hubs_are_not_what_the_best_guess_is_judged_by(make_pairs):
    pairs = make_pairs()
    plain, corrected = (ask("pair_likely", pairs, 6, similarity=s, directions="text") for s in ("plain", "csls"))
    expected = Matching.of(pairs, "text", "csls", rng=np.random.default_rng(1))
    items = corrected.items("text")
    found = expected.best(items, 8)
    for place, query in enumerate(corrected.queries):
        assert query.candidates.tolist() == found.rows[place].tolist()
    assert {q.item: q.candidates.tolist() for q in plain.queries} != {
        q.item: q.candidates.tolist() for q in corrected.queries
    }
