"""The encoder over an open_clip model, whichever way its weights came."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backend.encoders.precision import bf16_is_safe, has_native_bf16
from backend.encoders.spec import SETTING, EncoderSpec, checkpoint_path, encoder_id
from backend.encoders.torchvision_repair import import_torchvision
from backend.errors import EncoderCheckpointInvalid, EncoderFailed, EncoderUnavailable

_IMAGE_BATCH = {"cpu": 32, "cuda": 256}
_TEXT_BATCH = {"cpu": 64, "cuda": 512}
_PROBE_TEXTS = ("a photo of a small cat", "Two steam engines at the old station, about 1930", "7")


@dataclass(frozen=True)
class _Towers:
    """The parts of a loaded model that encoding needs; ``modules`` are what has to move to the device."""

    modules: tuple[nn.Module, ...]
    prepare: Callable[[Image.Image], Tensor]
    tokenize: Callable[[Sequence[str]], Tensor]
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    aligned: bool


class OpenClipEncoder:
    """Batched encoding with an open_clip model (see ``door.Encoder``)."""

    def __init__(self, identifier: str, towers: _Towers, device: torch.device) -> None:
        self._towers = towers
        self._device = device
        # Fast tokenizers are not reentrant ("Already borrowed").
        self._tokenizing = threading.Lock()
        images = torch.stack([towers.prepare(image) for image in _probe_images()])
        ids = towers.tokenize(_PROBE_TEXTS)
        probes = {"image": self._to_device(images), "text": ids.to(device)}
        native = has_native_bf16(device)
        safe = {name: native and bf16_is_safe(getattr(towers, name), probe, device) for name, probe in probes.items()}
        self.bf16: Mapping[str, bool] = MappingProxyType(safe)
        with torch.inference_mode():
            dims = {name: int(getattr(towers, name)(probe[:1]).shape[1]) for name, probe in probes.items()}
        self.id = identifier
        self.dims: Mapping[str, int] = MappingProxyType(dims)
        self.aligned = towers.aligned

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return (n, dims["image"]) float32 rows of unit length.

        Raises
        ------
        EncoderFailed
            A vector is not finite or has no direction.
        """
        rows = np.empty((len(images), self.dims["image"]), dtype=np.float32)
        size = _IMAGE_BATCH.get(self._device.type, 32)
        for start in range(0, len(images), size):
            batch = [self._towers.prepare(image.convert("RGB")) for image in images[start : start + size]]
            rows[start : start + len(batch)] = self._encode("image", self._to_device(torch.stack(batch)))
        return rows

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dims["text"]) float32 rows of unit length; what exceeds the model's limit is cut off.

        Raises
        ------
        EncoderFailed
            A vector is not finite or has no direction.
        """
        rows = np.empty((len(texts), self.dims["text"]), dtype=np.float32)
        size = _TEXT_BATCH.get(self._device.type, 64)
        # Texts of like length together: a batch costs as much as its longest text.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            with self._tokenizing:
                ids = self._towers.tokenize([texts[index] for index in chosen])
            rows[chosen] = self._encode("text", ids.to(self._device))
        return rows

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self._device, memory_format=torch.channels_last)

    def _encode(self, modality: str, batch: Tensor) -> np.ndarray:
        tower = getattr(self._towers, modality)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self.bf16[modality]),
        ):
            vectors: np.ndarray = tower(batch).float().cpu().numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise EncoderFailed(
                f"{SETTING}: encoder {self.id} gave a {modality} vector that is not finite or is zero. "
                "Check the checkpoint, or name another encoder."
            )
        return vectors / norms


def load(spec: EncoderSpec, *, device: str, cache_dir: Path | None) -> OpenClipEncoder:
    """Build the encoder that the parsed specification names (see ``door.load_encoder``)."""
    target = _device(device)
    identifier = encoder_id(spec.text)
    import_torchvision()
    towers = _packaged_towers() if spec.kind == "packaged" else _open_clip_towers(spec, cache_dir)
    for module in towers.modules:
        module.requires_grad_(False)
        module.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return OpenClipEncoder(identifier, towers, target)


def _packaged_towers() -> _Towers:
    from backend.encoders import packaged

    model = packaged.build_packaged()
    image = packaged.image_trunk(model)
    return _Towers(
        modules=(image, model.text),
        prepare=packaged.packaged_preprocess(),
        tokenize=packaged.packaged_tokenizer(),
        image=image,
        text=packaged.text_trunk(model),
        aligned=False,
    )


def _open_clip_towers(spec: EncoderSpec, cache_dir: Path | None) -> _Towers:
    import open_clip

    weights = str(checkpoint_path(spec)) if spec.kind == "checkpoint" else spec.weights
    _check_names(open_clip, spec)
    cache = None if cache_dir is None else str(cache_dir)
    try:
        model, _, prepare = open_clip.create_model_and_transforms(spec.model, pretrained=weights, cache_dir=cache)
        tokenizer = open_clip.get_tokenizer(spec.model, cache_dir=cache)
    except Exception as error:  # open_clip and the hub raise many kinds; all mean "not to be had here"
        raise _not_loaded(spec, error) from error
    model.eval()
    return _Towers(
        modules=(model,),
        prepare=prepare,
        tokenize=lambda texts: tokenizer(list(texts)),
        image=model.encode_image,
        text=model.encode_text,
        aligned=True,
    )


def _check_names(open_clip: Any, spec: EncoderSpec) -> None:
    models = open_clip.list_models()
    if spec.model not in models:
        near = difflib.get_close_matches(spec.model, models, n=5, cutoff=0.4) or models[:5]
        raise EncoderUnavailable(
            f"{SETTING}={spec.text!r}: open_clip knows no model {spec.model!r}. Near it: {', '.join(near)}."
        )
    tags = open_clip.list_pretrained_tags_by_model(spec.model)
    if spec.kind == "hub" and spec.weights not in tags:
        raise EncoderUnavailable(
            f"{SETTING}={spec.text!r}: model {spec.model!r} has no pretrained weights {spec.weights!r}. "
            f"It has: {', '.join(tags) or 'none; give a checkpoint, open_clip:NAME:/path'}."
        )


def _not_loaded(spec: EncoderSpec, error: Exception) -> EncoderCheckpointInvalid | EncoderUnavailable:
    cause = (str(error) or type(error).__name__).splitlines()[0][:300]
    if spec.kind == "checkpoint":
        return EncoderCheckpointInvalid(
            f"{SETTING}={spec.text!r}: the checkpoint cannot be loaded into {spec.model}: {cause}. "
            "Give a state dict saved from this very model."
        )
    return EncoderUnavailable(
        f"{SETTING}={spec.text!r}: the weights cannot be had: {cause}. Allow the model hub, put the weights "
        "into its cache, name a local checkpoint (open_clip:NAME:/path), or use 'packaged', which needs no "
        "network."
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EncoderUnavailable(
            f"device={name!r} cannot be used: {str(error).splitlines()[0]}. Use 'auto' or 'cpu'."
        ) from error
    return device


def _probe_images() -> list[Image.Image]:
    """Return a flat, a smooth, a drawn and a noisy picture: what half precision must stand."""
    noise = np.random.default_rng(0).integers(0, 256, size=(96, 128, 3), dtype=np.uint8)
    drawn = Image.new("RGB", (160, 120), "white")
    drawn.paste((200, 30, 30), (30, 20, 100, 90))
    drawn.paste((20, 60, 160), (70, 60, 150, 110))
    smooth = Image.linear_gradient("L").convert("RGB")
    return [Image.new("RGB", (64, 64), (128, 128, 128)), smooth, drawn, Image.fromarray(noise)]
