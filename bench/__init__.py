"""Benchmarks of speed and latency."""
