"""Rounds of projects whose answers are pairs: two pools of items, questions for counterparts, pairs."""
