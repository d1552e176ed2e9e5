"""Replays of sets whose pairing is hidden: which question about two pools teaches most."""
