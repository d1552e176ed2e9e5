"""Shared mathematics of the strategies: each module works on plain arrays."""
