"""The authors' network and losses: their outputs, the label graph, and what training does and does not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FeaturesMismatch, InvalidRetrievalOption, RetrievalTrainingFailed
from backend.learners.retrieval import AscmrNetwork, AscmrOptions, two_way_score
from backend.learners.retrieval.ascmr_losses import losses
from backend.learners.retrieval.ascmr_network import LabelGraph, NetworkShape, forward, initial_weights

GOLDEN = Path(__file__).parent.parent / "golden" / "ascmr_A_model.npz"
KINDS = ("GCN", "GAT")
SMALL = {"width": 16, "layers": 2, "text_hidden": 8, "image_hidden": 8, "learning_rate": 3e-3, "batch": 64}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as archive:
        return dict(archive)


def run(golden, kind):
    """(outputs, losses, settings) of this implementation on the inputs and weights of the golden file."""
    prefix = f"{kind}_w__"
    weights = {key.removeprefix(prefix): torch.from_numpy(golden[key]) for key in golden if key.startswith(prefix)}
    alpha, beta, threshold = golden[f"{kind}_losses"][6:]
    graph = LabelGraph.of_counts(golden["cooc"], golden["nums"], threshold)
    image, text, labels, words = (torch.from_numpy(golden[name]) for name in ("img", "txt", "Y", "inp"))
    out = forward(weights, image, text, words, torch.from_numpy(graph.normalised.astype(np.float32)))
    return out, losses(out, image, text, labels, alpha=alpha, beta=beta, clip_shared=False), graph


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_equals_the_authors_network(golden, kind):
    out, _, graph = run(golden, kind)
    ours = {
        "h_v": out.image,
        "h_t": out.text,
        "logit_v": out.image_scores,
        "logit_t": out.text_scores,
        "proto": out.prototypes,
        "A": out.affinity,
        "md_img_real": out.real_image,
        "md_img_fake": out.fake_image,
        "md_txt_real": out.real_text,
        "md_txt_fake": out.fake_text,
    }
    for name, found in ours.items():
        np.testing.assert_allclose(found.numpy(), golden[f"{kind}_{name}"], rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(graph.links, golden[f"{kind}_adj01"])
    np.testing.assert_allclose(graph.normalised, golden[f"{kind}_adjnorm"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_equals_the_authors(golden, kind):
    _, found, _ = run(golden, kind)
    ours = [found.classes, found.similarity, found.adversarial, found.mmd, found.affinity, found.total]
    np.testing.assert_allclose([float(term) for term in ours], golden[f"{kind}_losses"][:6], rtol=1e-5)


def test_clipping_shared_labels_changes_nothing_where_pairs_share_one_at_most(golden):
    out, _, _ = run(golden, "GCN")
    image, text = torch.from_numpy(golden["img"]), torch.from_numpy(golden["txt"])
    single = torch.eye(6)[torch.arange(48) % 6]
    for labels, same in ((single, True), (torch.from_numpy(golden["Y"]), False)):
        literal, clipped = (
            float(losses(out, image, text, labels, alpha=1.0, beta=1.0, clip_shared=clip).similarity)
            for clip in (False, True)
        )
        assert (literal == clipped) is same


def test_discriminators_see_the_rows_and_send_back_the_opposite_gradient():
    shape = NetworkShape(image=8, text=6, words=3, classes=3, width=5, layers=2, text_hidden=4, image_hidden=4)
    weights = initial_weights(shape, torch.Generator().manual_seed(0))
    image = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = forward(weights, image, torch.ones(4, 6), torch.eye(3), torch.eye(3))
    out.real_image.sum().backward()
    plain = image.detach().clone().requires_grad_()
    rows = plain
    for layer in (1, 2, 3):
        rows = rows @ weights[f"img_md_net.denseL{layer}.weight"].T + weights[f"img_md_net.denseL{layer}.bias"]
    rows.sum().backward()
    torch.testing.assert_close(out.real_image, rows)
    torch.testing.assert_close(image.grad, -plain.grad)


@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(0, 30), n_classes=st.integers(1, 6), threshold=st.floats(0.05, 1)
)
@settings(max_examples=60, deadline=None)
def test_the_label_graph_is_finite_and_links_every_class_to_itself(seed, n, n_classes, threshold):
    labels = np.random.default_rng(seed).integers(0, 2, (n, n_classes))
    for smoothing in (0.0, 1.0):
        graph = LabelGraph.of_labels(labels, threshold, smoothing=smoothing)
        assert np.isfinite(graph.normalised).all()
        assert (np.diag(graph.links) == 1).all()
        assert (np.diag(graph.normalised) > 0).all()
        root = np.sqrt(graph.links.sum(axis=1))
        np.testing.assert_allclose(graph.normalised * root[:, None] * root[None, :], graph.links.T, atol=1e-12)


def test_one_chance_meeting_links_two_classes_only_without_smoothing():
    labels = np.zeros((10, 5), np.int8)
    labels[0, :2] = 1
    labels[1:, 2] = 1
    assert LabelGraph.of_labels(labels, 0.5, smoothing=0.0).links[0, 1] == 1
    np.testing.assert_array_equal(LabelGraph.of_labels(labels, 0.5).links, np.eye(5))


def clusters(n=90, n_classes=3, *, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, n)
    features = {}
    for name, width in (("image", 14), ("text", 10)):
        rows = rng.normal(size=(n_classes, width))[classes] + 0.8 * rng.normal(size=(n, width))
        features[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return features, np.eye(n_classes, dtype=np.int8)[classes]


def fit(features, labels, *, seed=0, start=None, **options):
    return AscmrNetwork.fit(features, labels, seed=seed, start=start, options=AscmrOptions(**{**SMALL, **options}))


def test_training_goes_on_from_the_weights_of_the_round_before():
    features, labels = clusters()
    first = fit(features, labels, epochs=5)
    np.testing.assert_array_equal(
        fit(features, labels, epochs=0, start=first).weights["img_net.denseL1.weight"],
        first.weights["img_net.denseL1.weight"],
    )
    fresh = fit(features, labels, epochs=0)
    assert not np.array_equal(fresh.weights["hypo.weight"], first.weights["hypo.weight"])
    other = fit(features, labels, epochs=0, start=first, width=12)
    assert other.width == 12


def test_training_stops_when_nothing_gets_better_and_keeps_the_best_epoch():
    features, labels = clusters()
    long = fit(features, labels, epochs=60, patience=3)
    assert long.epochs < 60
    best = fit(features, labels, epochs=long.epochs - 3, patience=3)
    np.testing.assert_array_equal(long.weights["text_net.denseL1.weight"], best.weights["text_net.denseL1.weight"])


def test_pairs_with_one_half_do_not_train():
    features, labels = clusters()
    halved = {name: rows.copy() for name, rows in features.items()}
    halved["image"][60:] = 0
    hidden = labels.copy()
    hidden[60:] = -1
    one, other = fit(halved, labels, epochs=2), fit(features, hidden, epochs=2)
    np.testing.assert_array_equal(one.weights["img_net.denseL1.weight"], other.weights["img_net.denseL1.weight"])


def test_class_vectors_take_the_place_of_one_hot_rows_and_must_fit():
    features, labels = clusters()
    vectors = np.random.default_rng(1).normal(size=(3, 7))
    assert fit(features, labels, epochs=1, class_vectors=vectors).shape.words == 7
    with pytest.raises(InvalidRetrievalOption, match=r"class_vectors have shape \(2, 7\)"):
        fit(features, labels, epochs=1, class_vectors=vectors[:2])


def test_a_loss_that_is_no_number_is_said_and_nothing_kept():
    features, labels = clusters()
    with pytest.raises(RetrievalTrainingFailed, match="lower learning_rate"):
        fit(features, labels, epochs=20, learning_rate=1e18)


def test_other_modalities_than_image_and_text_are_refused():
    features, labels = clusters()
    with pytest.raises(FeaturesMismatch, match="made for exactly"):
        fit({"audio": features["image"], "text": features["text"]}, labels)


@pytest.mark.parametrize("encoder", ["gcn", "gat"])
def test_training_raises_the_score_of_pairs_not_trained_on(encoder):
    features, labels = clusters(300)
    shown = np.where(np.arange(300)[:, None] < 150, labels, -1)
    unseen = {name: rows[150:] for name, rows in features.items()}

    def score(**options):
        return two_way_score(fit(features, shown, encoder=encoder, **options).embed(unseen), labels[150:]).mean

    assert score(epochs=15) > score(epochs=0) + 0.2
