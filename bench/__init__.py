"""Benchmarks of speed and latency."""

import cliprl.engines  # noqa: F401 - before all libraries
