"""The encoder over an open_clip model, whichever way its weights came."""

from __future__ import annotations

import difflib
import logging
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

from backend.encoders.devices import no_memory, usable_device
from backend.encoders.precision import bf16_is_safe, has_native_bf16
from backend.encoders.preparation import PicturePreparation
from backend.encoders.spec import SETTING, EncoderSpec, checkpoint_path, encoder_id
from backend.encoders.torchvision_repair import import_torchvision
from backend.errors import EncoderCheckpointInvalid, EncoderFailed, EncoderUnavailable

log = logging.getLogger(__name__)

_BATCH = {"cpu": {"image": 32, "text": 64}, "cuda": {"image": 256, "text": 512}}
_PROBE_TEXTS = ("a photo of a small cat", "Two steam engines at the old station, about 1930", "7")


@dataclass(frozen=True)
class _Towers:
    """The parts of a loaded model that encoding needs; ``modules`` are what has to move to the device."""

    modules: tuple[nn.Module, ...]
    prepare: PicturePreparation
    tokenize: Callable[[Sequence[str]], Tensor]
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    aligned: bool


class OpenClipEncoder:
    """Batched encoding with an open_clip model (see ``door.Encoder``).

    Attributes
    ----------
    device : where the towers are
    bf16 : modality -> whether its tower computes in half precision
    batch : modality -> items that pass the tower at once; halved for good if the device has no room
    prepare : pictures -> batches for ``run``
    """

    def __init__(self, identifier: str, towers: _Towers, device: torch.device) -> None:
        self._towers = towers
        self.device = device
        self.prepare = towers.prepare
        self.batch = dict(_BATCH.get(device.type, _BATCH["cpu"]))
        # Fast tokenizers are not reentrant ("Already borrowed").
        self._tokenizing = threading.Lock()
        pictures = _probe_images()
        inputs = {"image": next(self.prepare.batches(pictures, len(pictures))), "text": self.tokenize(_PROBE_TEXTS)}
        probes = {modality: self._to_device(modality, batch) for modality, batch in inputs.items()}
        native = has_native_bf16(device)
        self.bf16 = {m: native and bf16_is_safe(getattr(towers, m), probe, device) for m, probe in probes.items()}
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
        EncoderUnavailable
            The device has no memory left.
        """
        rows = np.empty((len(images), self.dims["image"]), dtype=np.float32)
        start = 0
        for batch in self.prepare.batches(images, self.batch["image"]):
            rows[start : start + len(batch)] = self.run("image", batch)
            start += len(batch)
        return rows

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dims["text"]) float32 rows of unit length; what exceeds the model's limit is cut off.

        Raises
        ------
        EncoderFailed, EncoderUnavailable
            As for images.
        """
        rows = np.empty((len(texts), self.dims["text"]), dtype=np.float32)
        size = self.batch["text"]
        # Texts of like length together: a batch costs as much as its longest text.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows[chosen] = self.run("text", self.tokenize([texts[index] for index in chosen]))
        return rows

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return the (n, length) token ids that ``run`` takes."""
        with self._tokenizing:
            return self._towers.tokenize(texts)

    def run(self, modality: str, inputs: Tensor) -> np.ndarray:
        """Return the unit rows of prepared pictures or token ids, in smaller batches where memory runs out."""
        rows: list[np.ndarray] = []
        done, size = 0, self.batch[modality]
        while done < len(inputs):
            part = inputs[done : done + size]
            try:
                rows.append(self._encode(modality, part))
                done += len(part)
                continue
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise no_memory(self.device, f"for one {modality} of encoder {self.id}") from error
            # Only here, after the error is gone, nothing holds the failed batch any more.
            torch.cuda.empty_cache()
            size = max(1, len(part) // 2)
            words = ""
            if len(part) == self.batch[modality]:
                # Of a shorter part, something else has the memory just now: the next call tries a whole batch again.
                self.batch[modality], words = size, " from now on"
            log.warning("%s has no memory for %d %ss at once: %d%s", self.device, len(part), modality, size, words)
        return np.concatenate(rows) if rows else np.empty((0, self.dims[modality]), dtype=np.float32)

    def _to_device(self, modality: str, inputs: Tensor) -> Tensor:
        return self.prepare.pixels(inputs, self.device) if modality == "image" else inputs.to(self.device)

    def _encode(self, modality: str, inputs: Tensor) -> np.ndarray:
        tower = getattr(self._towers, modality)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16[modality]),
        ):
            vectors: np.ndarray = tower(self._to_device(modality, inputs)).float().cpu().numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise EncoderFailed(
                f"{SETTING}: encoder {self.id} gave a {modality} vector that is not finite or is zero. "
                "Check the checkpoint, or name another encoder."
            )
        return vectors / norms


def load(spec: EncoderSpec, *, device: str, cache_dir: Path | None) -> OpenClipEncoder:
    """Build the encoder that the parsed specification names (see ``door.load_encoder``)."""
    target = usable_device(device)
    identifier = encoder_id(spec.text)
    import_torchvision()
    towers = _packaged_towers() if spec.kind == "packaged" else _open_clip_towers(spec, cache_dir)
    try:
        for module in towers.modules:
            module.requires_grad_(False)
            module.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return OpenClipEncoder(identifier, towers, target)
    except torch.OutOfMemoryError as error:
        raise no_memory(target, f"for encoder {identifier}") from error


def _packaged_towers() -> _Towers:
    from backend.encoders import packaged

    model = packaged.build_packaged()
    image = packaged.image_trunk(model)
    return _Towers(
        modules=(image, model.text),
        prepare=PicturePreparation(packaged.packaged_preprocess()),
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
        prepare=PicturePreparation(prepare),
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


def _probe_images() -> list[Image.Image]:
    """Return a flat, a smooth, a drawn and a noisy picture: what half precision must stand."""
    noise = np.random.default_rng(0).integers(0, 256, size=(96, 128, 3), dtype=np.uint8)
    drawn = Image.new("RGB", (160, 120), "white")
    drawn.paste((200, 30, 30), (30, 20, 100, 90))
    drawn.paste((20, 60, 160), (70, 60, 150, 110))
    smooth = Image.linear_gradient("L").convert("RGB")
    return [Image.new("RGB", (64, 64), (128, 128, 128)), smooth, drawn, Image.fromarray(noise)]
