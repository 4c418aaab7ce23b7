"""Scoring picks against reference coordinates."""
