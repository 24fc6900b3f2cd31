"""Rendered tissue."""
