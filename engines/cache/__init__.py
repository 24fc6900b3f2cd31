"""Compiled engines on disk, and the sidecar files that speed up the next build."""
