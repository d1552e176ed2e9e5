"""The projections that ship, and reading of such files: for their own encoder and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.encoders import encoder_id
from backend.errors import HeadStateInvalid, WarmStartUnsuited
from backend.learners.projection import ProjectionHead
from backend.learners.warm_start import FOLDER, read_warm_start, shipped_warm_start, write_warm_start

PACKAGED_DIMS = {"image": 1280, "text": 384}


def test_the_packaged_encoder_has_one_and_it_takes_its_rows():
    head = shipped_warm_start(encoder_id("packaged"))
    assert head is not None
    assert head.dims == PACKAGED_DIMS
    for modality, width in PACKAGED_DIMS.items():
        rows = np.random.default_rng(0).normal(size=(3, width))
        np.testing.assert_allclose(np.linalg.norm(head.embed(modality, rows), axis=1), 1, atol=1e-6)


def test_an_encoder_without_one_starts_from_nothing():
    assert shipped_warm_start("open_clip+ViT-B-32+openai+r1") is None


def test_another_encoder_s_file_is_refused_with_both_names(tmp_path: Path):
    path = tmp_path / "mine.safetensors"
    write_warm_start(path, ProjectionHead.identity(4), "mine+r1", {})
    with pytest.raises(WarmStartUnsuited, match=r"mine\+r1.*yours\+r1"):
        read_warm_start(path, "yours+r1")
    assert read_warm_start(path, "mine+r1").width == 4


def test_what_is_no_projection_is_refused(tmp_path: Path):
    (tmp_path / "junk.safetensors").write_bytes(b"not a tensor")
    for name in ("junk", "missing"):
        with pytest.raises(HeadStateInvalid, match=name):
            read_warm_start(tmp_path / f"{name}.safetensors", "mine+r1")


def test_all_that_ships_is_below_two_megabytes_and_has_its_card():
    files = sorted(FOLDER.glob("*.safetensors"))
    assert files
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert (FOLDER / "CARD.md").is_file()
