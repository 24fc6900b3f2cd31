"""Rendered instruments."""
