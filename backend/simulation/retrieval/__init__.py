"""Replays of retrieval projects: pairs with several labels, and a model that puts both halves into one space."""
