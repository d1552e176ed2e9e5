"""Frozen image and text towers: pictures and texts in, unit vectors out.

Importing this package does not import torch; ``load_encoder`` does.
"""

from __future__ import annotations

from backend.encoders.door import Encoder, load_encoder
from backend.encoders.spec import encoder_id

__all__ = ["Encoder", "encoder_id", "load_encoder"]
