"""Recordings of a live stream, in segments."""
