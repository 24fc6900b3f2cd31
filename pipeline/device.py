"""Where the pixels are worked on. Chosen once, at the start; the rest of the pipeline does not know which one it has."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.ring import FrameRing, Policy
from cliprl.pipeline.view import View


class Device(Protocol):
    """The operations that touch pixels: memory for frames, and the network's picture made from them."""

    name: str

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """A ring of preallocated slots in the device's memory."""
        ...

    def prepare(self, frame: Frame, view: View, out: NDArray[np.uint8]) -> None:
        """Write the network's RGB picture, uint8 (H, W, 3), straight from the frame's planes."""
        ...


DEVICES = {"cpu": "cliprl.pipeline.cpu"}


def open_device(name: str) -> Device:
    """The device called `name`. Raises UsageError for one this version does not have."""
    if name not in DEVICES:
        raise UsageError(f"unknown device '{name}': this version runs on {', '.join(DEVICES)}")
    device: Device = import_module(DEVICES[name]).open_device()
    return device
