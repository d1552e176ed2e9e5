"""Measurements of this project, each printed as JSON and as a table."""
