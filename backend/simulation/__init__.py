"""Replays of labelled data as active-learning projects, and the data sets for them."""
