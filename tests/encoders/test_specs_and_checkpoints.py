"""Names of encoders, their ids, and weights from local files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend import errors
from backend.encoders import encoder_id, load_encoder
from backend.encoders.spec import parse_spec
from tests.encoders.conftest import MODEL


def test_the_three_forms_are_read() -> None:
    assert parse_spec("packaged").kind == "packaged"
    hub = parse_spec("open_clip:ViT-B-16-SigLIP/webli")
    assert (hub.kind, hub.model, hub.weights) == ("hub", "ViT-B-16-SigLIP", "webli")
    local = parse_spec("open_clip:RN50:/models/a:b/c.pt")
    assert (local.kind, local.model, local.weights) == ("checkpoint", "RN50", "/models/a:b/c.pt")


@pytest.mark.parametrize(
    "spec", ["", "clip", "Packaged", "open_clip", "open_clip:", "open_clip:RN50", "open_clip:/x", "open_clip:RN50/"]
)
def test_other_values_are_refused_with_setting_value_and_remedy(spec: str) -> None:
    for use in (load_encoder, encoder_id):
        with pytest.raises(errors.EncoderSpecInvalid) as caught:
            use(spec)
        message = str(caught.value)
        assert "MMAL_ENCODER" in message and repr(spec) in message and "packaged" in message


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse_spec(text)
    except errors.EncoderSpecInvalid:
        return
    assert text == "packaged" or (text.startswith("open_clip:") and parsed.model and parsed.weights)


def test_ids_differ_with_what_makes_the_vectors_and_can_name_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(checkpoint.read_bytes())
    changed = tmp_path / "changed.pt"
    changed.write_bytes(checkpoint.read_bytes() + b"\0")
    ids = [
        encoder_id(spec)
        for spec in (
            "packaged",
            "open_clip:ViT-B-32/openai",
            "open_clip:ViT-B-32/laion2b_e16",
            "open_clip:ViT-B-16/openai",
            f"open_clip:{MODEL}:{checkpoint}",
            f"open_clip:ViT-S-32:{checkpoint}",
            f"open_clip:{MODEL}:{changed}",
        )
    ]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9._+-]{1,150}", name) for name in ids)
    # The same weights elsewhere are the same encoder: vectors survive a move.
    assert encoder_id(f"open_clip:{MODEL}:{copy}") == ids[4]


def test_id_follows_a_checkpoint_that_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"one")
    first = encoder_id(f"open_clip:{MODEL}:{path}")
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert encoder_id(f"open_clip:{MODEL}:{path}") != first


def test_local_checkpoint_encodes_as_open_clip_itself_does(checkpoint: Path, device: str) -> None:
    import open_clip

    encoder = load_encoder(f"open_clip:{MODEL}:{checkpoint}", device=device)
    encoder.bf16 = {"image": False, "text": False}  # type: ignore[attr-defined]
    model, _, prepare = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    tokenizer = open_clip.get_tokenizer(MODEL)
    picture = Image.linear_gradient("L").convert("RGB")
    with torch.inference_mode():
        image = model.eval().encode_image(prepare(picture)[None], normalize=True).numpy()
        text = model.encode_text(tokenizer(["a red house"]), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images([picture]), image, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(["a red house"]), text, atol=1e-4)
    assert encoder.aligned and encoder.dims["image"] == encoder.dims["text"]


def test_checkpoint_that_does_not_fit_is_named(checkpoint: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"no weights")
    for model, path in (("ViT-S-16-alt", checkpoint), (MODEL, garbage)):
        with pytest.raises(errors.EncoderCheckpointInvalid) as caught:
            load_encoder(f"open_clip:{model}:{path}")
        assert "MMAL_ENCODER" in str(caught.value) and model in str(caught.value)


def test_absent_checkpoint_is_unavailable(tmp_path: Path) -> None:
    spec = f"open_clip:{MODEL}:{tmp_path / 'absent.pt'}"
    for use in (load_encoder, encoder_id):
        with pytest.raises(errors.EncoderUnavailable, match=r"absent\.pt"):
            use(spec)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("open_clip:ViT-B-31/openai", "ViT-B-32"), ("open_clip:ViT-B-32/opnai", "laion2b_s34b_b79k")],
)
def test_misspelt_names_list_the_known_ones(spec: str, hint: str) -> None:
    with pytest.raises(errors.EncoderUnavailable) as caught:
        load_encoder(spec)
    assert repr(spec) in str(caught.value) and hint in str(caught.value)


def test_hub_weights_without_a_hub_name_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(errors.EncoderUnavailable) as caught:
        load_encoder("open_clip:ViT-B-32/openai", cache_dir=tmp_path)
    assert "MMAL_ENCODER='open_clip:ViT-B-32/openai'" in str(caught.value) and "packaged" in str(caught.value)


def test_missing_package_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.encoders import spec

    monkeypatch.setattr(spec, "TEXT_PACKAGE", "a-package-nobody-installed")
    with pytest.raises(errors.EncoderUnavailable, match="pip install"):
        encoder_id("packaged")
