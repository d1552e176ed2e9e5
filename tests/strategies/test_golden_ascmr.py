"""Records of the ASCMR authors' functions (A, C, D), and of the reference of the noted formulas (E, F)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.strategies.ascmr import Ascmr
from backend.strategies.kernels import gaussian_match as match
from backend.strategies.kernels.allocation import frank_wolfe, greedy_allocation, improved, objective
from backend.strategies.kernels.density import MatchKernel, TableKernel, mean_similarity, reference_density
from backend.strategies.kernels.gaussian_match import Gaussians
from backend.strategies.kernels.selector_scores import PoolScores
from tests.reference import ascmr_code as code
from tests.reference import ascmr_heads as heads
from tests.reference import noted_formulas as noted

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"ascmr_{name}.npz") as archive:
        return dict(archive)


# -- C: query strategies as coded ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def c():
    g = load("C_strategies")
    g["U"], g["L"], g["k"] = g["unlabelled_ids"], np.flatnonzero(g["labelled"]), int(g["b"])
    return g


def test_entropy_as_coded(c):
    picks = code.entropy_picks(c["logit_v"][c["U"]], c["U"], c["k"])
    np.testing.assert_array_equal(picks, c["entropy_sel"])


def test_bald_as_coded(c):
    picks = code.bald_picks(c["bald_probs"][:, c["U"]], c["U"], c["k"])
    np.testing.assert_array_equal(picks, c["bald_sel"])


def test_coreset_as_coded(c):
    free, known = c["h_v"][c["U"]], c["h_v"][c["L"]]
    picks = code.centre_picks(code.euclidean_table(free, known), code.euclidean_table(free, free), c["U"], c["k"])
    np.testing.assert_array_equal(picks, c["coreset_sel"])


def test_cdal_as_coded(c):
    free, known = c["logit_v"][c["U"]], c["logit_v"][c["L"]]
    distances = code.divergence_table(free, known)
    np.testing.assert_allclose(distances, c["cdal_dist_U_L"], atol=1e-6)
    picks = code.centre_picks(distances, code.divergence_table(free, free), c["U"], c["k"])
    np.testing.assert_array_equal(picks, c["cdal_sel"])


def test_badge_gradients_as_coded(c):
    gradients = code.badge_gradients(c["logit_v"][c["U"]], c["h_v"][c["U"]])
    np.testing.assert_allclose(gradients, c["badge_grad_as_coded"], atol=1e-5)


def test_graph_network_as_coded(c):
    nodes = c["h_v"][np.concatenate([c["U"], c["L"]])]
    adjacency = code.graph_adjacency(nodes)
    np.testing.assert_allclose(adjacency, c["gcn_adj"], atol=1e-5)
    weights = {k.removeprefix("gcn_w__"): v for k, v in c.items() if k.startswith("gcn_w__")}
    hidden, scores = code.graph_scores(nodes, weights)
    np.testing.assert_allclose(hidden, c["gcn_feat"], atol=1e-5)
    np.testing.assert_allclose(scores, c["gcn_score"][:, 0], atol=1e-5)
    free = len(c["U"])
    np.testing.assert_allclose(code.graph_loss(scores[free:], scores[:free]), c["gcn_loss"], rtol=1e-5)
    np.testing.assert_array_equal(code.uncertain_gcn_positions(scores[:free], c["k"]), c["uncertaingcn_sel_pos"])
    table = code.euclidean_table(hidden[:free], hidden)
    picks = code.centre_picks(table[:, free:], table[:, :free], np.arange(free), c["k"])
    np.testing.assert_array_equal(picks, c["coregcn_sel_pos"])


def test_deepfool_as_coded(c):
    a = load("A_model")
    scores = code.cosine_scores(a["GCN_w__img_net.denseL1.weight"], a["GCN_w__img_net.denseL1.bias"], a["GCN_proto"])
    for row in range(len(a["img"])):
        np.testing.assert_allclose(scores(a["img"][row])[0], a["GCN_logit_v"][row], atol=1e-5)
    lengths = [code.deepfool_length(a["img"][row], scores) for row in c["deepfool_ids"]]
    np.testing.assert_allclose(lengths, c["deepfool_dis"], rtol=1e-4)


def test_query_bank_as_coded(c):
    np.testing.assert_allclose(code.query_bank_similarity(c["qb_bank"], c["qb_test"]), c["qb_norm"], rtol=1e-6)
    positions = code.query_bank_positions(c["qb_bank"], c["qb_test"], c["k"])
    np.testing.assert_array_equal(positions, c["qb_sel_pos"])


def test_inter_modality_as_coded(c):
    np.testing.assert_allclose(code.own_products(c["h_v"], c["h_t"]), c["inter_sim_diag"], atol=1e-5)
    picks = code.inter_modality_picks(c["h_v"][c["U"]], c["h_t"][c["U"]], c["U"], c["k"])
    np.testing.assert_array_equal(picks, c["inter_sel_pool"])


def test_alfa_mixing_as_coded(c):
    epsilon = 0.03125 / np.sqrt(c["alfa_emb"].shape[1])
    alpha = code.alfa_mixing(c["alfa_emb"], c["alfa_anchor"], c["alfa_grad"], epsilon)
    np.testing.assert_allclose(alpha, c["alfa_alpha"], rtol=1e-5, atol=1e-5)


# -- D: the authors' Gaussian heads --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def d():
    g = load("D_probenc")
    for branch in ("img", "txt"):
        prefix = f"w_{branch}__"
        g[branch] = {k.removeprefix(prefix): v for k, v in g.items() if k.startswith(prefix)}
    return g


def test_heads_as_coded(d):
    image, text = heads.image_gaussians(d["x_img"], d["img"]), heads.text_gaussians(d["x_txt"], d["txt"])
    for found, wanted in ((image, "v"), (text, "t")):
        np.testing.assert_allclose(found.mean, d[f"mu_{wanted}"], atol=1e-5)
        np.testing.assert_allclose(found.variance, d[f"var_{wanted}"], atol=1e-5)


def test_heads_as_coded_depend_on_the_rest_of_the_batch(d):
    alone = heads.image_gaussians(d["x_img"][:8], d["img"])
    np.testing.assert_allclose(alone.mean, d["mu_v_first8"], atol=1e-5)
    np.testing.assert_allclose(alone.variance, d["var_v_first8"], atol=1e-5)
    assert np.abs(alone.mean - d["mu_v"][:8]).max() > 1e-4


def test_match_probability_as_coded(d):
    distances = heads.sampled_distances(d["samples_v"].astype(np.float64), d["samples_t"].astype(np.float64))
    np.testing.assert_allclose(distances, d["cdist"], atol=1e-5)
    probability = heads.sampled_match_probability(d["samples_v"], d["samples_t"])
    np.testing.assert_allclose(probability, d["match_prob"], atol=1e-5)


def test_loss_as_coded(d):
    np.testing.assert_allclose(heads.pcme_loss(d["samples_v"][:6], d["samples_t"][:6]), d["pcme_loss6"], rtol=1e-3)


def test_dispersions_as_coded(d):
    image, text = Gaussians(d["mu_v"], d["var_v"]), Gaussians(d["mu_t"], d["var_t"])
    np.testing.assert_allclose(heads.dispersion_rows(image, text), d["w2_rows"], atol=1e-5)
    np.testing.assert_allclose(heads.variance_directions(image), d["var_dispersion_v"], atol=1e-5)


# -- E: the noted formulas -----------------------------------------------------------------------------------------

exactly = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture(scope="module")
def e():
    return load("E_paper_reference")


@pytest.fixture(scope="module")
def sides(e):
    return Gaussians(e["mu_v"], e["var_v"]), Gaussians(e["mu_t"], e["var_t"])


def test_match_probabilities_as_noted(e, sides):
    image, text = (noted.floored(side, float(e["eps"])) for side in sides)
    np.testing.assert_allclose(match.log_match(image, text), e["log_p_pair"], **exactly)
    np.testing.assert_allclose(match.log_match_table(image, text), e["log_p_all"], **exactly)
    np.testing.assert_allclose(noted.matching_losses(e["log_p_all"]), e["LCL_mat"], **exactly)
    for side, wanted in ((image, "kl_v"), (text, "kl_t")):
        np.testing.assert_allclose(noted.divergence_from_standard(side), e[wanted], **exactly)


def test_informativeness_as_noted(e, sides):
    found = noted.informativeness(*sides, alpha=float(e["alpha"]), floor=float(e["eps"]))
    np.testing.assert_allclose(found, e["info"], **exactly)


def test_the_strategy_takes_the_noted_score_over_its_maximum(e, sides):
    scores = PoolScores(
        *(side.sizes() for side in sides), e["log_p_pair"], MatchKernel.of(Gaussians(e["mu_z"], e["var_z"] + 1.0))
    )
    everyone = np.ones(len(e["info"]), dtype=bool)
    found, _ = Ascmr(compat="note", alpha=float(e["alpha"]))._information(
        scores, {"image": everyone, "text": everyone}, everyone, temper=1.0
    )
    np.testing.assert_allclose(found, e["info"] / e["info"].max(), **exactly)


def test_fusion_and_density_as_noted(e, sides):
    fused = match.fused(*sides)
    np.testing.assert_allclose(fused.mean, e["mu_z"], **exactly)
    np.testing.assert_allclose(fused.variance, e["var_z"], **exactly)
    kernel, everyone = MatchKernel.of(noted.floored(fused, float(e["eps"]))), np.arange(len(fused))
    np.testing.assert_allclose(kernel.columns(everyone), e["P"], **exactly)
    np.testing.assert_allclose(reference_density(kernel, everyone, everyone), e["density_i"], **exactly)
    np.testing.assert_allclose(mean_similarity(kernel, everyone), e["A_all"], **exactly)


@pytest.mark.parametrize("weight", ["0", "1", "10"])
def test_allocation_with_the_noted_kernel(e, weight):
    fused = noted.floored(Gaussians(e["mu_z"], e["var_z"]), float(e["eps"]))
    kernel, b = MatchKernel.of(fused), int(e["b"])
    greedy = greedy_allocation(e["info"], kernel, b, float(weight))
    swapped = improved(e["info"], kernel, greedy, float(weight))
    for found, wanted in ((greedy, "greedy"), (swapped, "swap")):
        assert set(found.picks) == set(e[f"{wanted}_lam{weight}"])
        value = objective(e["info"], kernel, found.picks, float(weight))
        np.testing.assert_allclose(value, e[f"{wanted}val_lam{weight}"], **exactly)
    np.testing.assert_array_equal(greedy.picks, e[f"greedy_lam{weight}"])
    np.testing.assert_array_equal(np.sort(swapped.picks), e[f"opt_lam{weight}"])


# -- F: allocation -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def f():
    return load("F_allocation")


@pytest.mark.parametrize("weight", ["0", "0.5", "2", "8"])
def test_greedy_and_swaps_against_the_optimum_by_exhaustion(f, weight):
    kernel, b = TableKernel(f["P"]), int(f["b"])
    greedy = greedy_allocation(f["I"], kernel, b, float(weight))
    np.testing.assert_array_equal(greedy.picks, f[f"greedy_{weight}"])
    value = objective(f["I"], kernel, greedy.picks, float(weight))
    np.testing.assert_allclose(value, f[f"greedyval_{weight}"], **exactly)
    swapped = improved(f["I"], kernel, greedy, float(weight))
    np.testing.assert_array_equal(np.sort(swapped.picks), f[f"opt_{weight}"])
    value = objective(f["I"], kernel, swapped.picks, float(weight))
    np.testing.assert_allclose(value, f[f"optval_{weight}"], **exactly)


@pytest.mark.parametrize("weight", ["0", "0.5", "2", "8"])
def test_frank_wolfe_as_in_the_reference_and_above_the_optimum(f, weight):
    kernel, b = TableKernel(f["P"]), int(f["b"])
    # The reference takes 4,000 exact steps from equal shares.
    found = frank_wolfe(f["I"], kernel, b, float(weight), rounds=4000, tolerance=0.0)
    np.testing.assert_allclose(found.value, f[f"relaxval_{weight}"], rtol=1e-8)
    np.testing.assert_allclose(found.shares, f[f"q_{weight}"], atol=1e-8)
    assert found.bound >= f[f"relaxval_{weight}"] - 1e-12 >= f[f"optval_{weight}"] - 2e-12
    picks = found.rounded(b)
    np.testing.assert_array_equal(picks, f[f"round_{weight}"])
    np.testing.assert_allclose(objective(f["I"], kernel, picks, float(weight)), f[f"roundval_{weight}"], rtol=1e-10)
