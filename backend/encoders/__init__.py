"""Frozen image and text towers: pictures and texts in, unit vectors out.

Importing this package does not import torch; ``load_encoder`` does.
"""

from __future__ import annotations

from backend.encoders.door import Encoder, load_encoder
from backend.encoders.label_names import encode_label_names, modalities_with_names, readable
from backend.encoders.spec import encoder_id

__all__ = ["Encoder", "encode_label_names", "encoder_id", "load_encoder", "modalities_with_names", "readable"]
