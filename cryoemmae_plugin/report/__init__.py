"""Figures and pages that show what was picked."""
