"""Trainable heads on frozen vectors: arrays in, arrays out. Importing this package never imports torch."""

from backend.learners.late_fusion import LateFusionHead

__all__ = ["LateFusionHead"]
