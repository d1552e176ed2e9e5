"""Imports torchvision also where its compiled part cannot be loaded.

The torchvision wheel of the package index is built against CUDA torch. Next to a CPU-only torch its compiled
part is left out without a word, and ``import torchvision`` then stops at fake kernels for two operators
nobody defined. open_clip and timm need the import, not the operators, so their schemas are declared and the
import is tried again. Installations where the import works are left as they are.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_SYMPTOM = "operator torchvision::"
_OPERATORS = ("nms", "qnms")
# torch forgets the schemas when the library object is collected.
_kept_libraries: list[Any] = []


def import_torchvision() -> ModuleType:
    """Return torchvision, declaring its two missing operators only when their absence breaks the import.

    Raises
    ------
    ImportError, RuntimeError
        Whatever the import raises for any other cause; it is not hidden.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error) or _kept_libraries:
            raise
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_libraries.append(library)
    # The failed import leaves submodules behind that would be taken for complete.
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    return importlib.import_module("torchvision")
