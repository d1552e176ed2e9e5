"""Replays of retrieval projects: labelled pairs, several labels each, a model that puts both halves into one space."""
