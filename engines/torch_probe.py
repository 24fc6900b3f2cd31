"""What torch finds on this machine. No network of cliprl runs on it yet, and its probe says so."""

from __future__ import annotations

from cliprl.engines.engine import Probe
from cliprl.engines.nvidia import find_driver
from cliprl.engines.tensorrt_probe import torch_cuda, why_not_torch

NAME = "torch-cuda"


def probe_torch() -> Probe:
    """Why torch can't serve on a GPU here: the first reason that holds."""
    driver = find_driver()
    if driver is None:
        return Probe(NAME, False, "no NVIDIA driver on this machine: install it, or run with --device cpu")
    reason = why_not_torch(torch_cuda)
    return Probe(
        NAME, False, reason or "torch sees the GPU, but this version runs no network on it: pip install tensorrt"
    )
