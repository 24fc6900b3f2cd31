"""Where the pixels are worked on. Chosen once, at the start; the rest of the pipeline does not know which one it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, UsageError, ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.core.ring_buffer import FrameRing, Policy
from cliprl.pipeline.core.viewport import Viewport

if TYPE_CHECKING:
    from cliprl.pipeline.overlay.overlay import Overlay, Style
    from cliprl.pipeline.segment.segmenter import Segmenter
    from cliprl.pipeline.sources.base import FrameSource


class Device(Protocol):
    """The operations that touch pixels: memory for frames, the network's picture made from them, and paint on them.

    A device serves one video stream. `notes` say what was chosen at start-up, and why, a sentence each.
    """

    name: str
    notes: tuple[str, ...]
    # Told what the host is at, for a profiler of the device; None where there is none.
    ranges: Callable[[str], AbstractContextManager[object]] | None

    def source(
        self, name: str, say: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """Open whatever gives frames, as `open_source` does, with the device's own decoder where it has one for it.

        `say` is told why it has none. `stream` as for `open_source`. The frames must be read into a ring of this device.
        """
        ...

    def sink(self, target: str, scene: OutputSpec, **settings: Any) -> Sink:
        """Open an output as `open_sink` does, with the device's own encoder where it has one for it.

        An output that the device encodes itself reads no planes in host memory: they are not brought there, if all are such.
        """
        ...

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """A ring of preallocated slots in the device's memory."""
        ...

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network's RGB picture, uint8 (H, W, 3), straight from the frame's planes."""
        ...

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """A segmenter for this device's frames. Settings as for `Segmenter`, but for the device."""
        ...

    def settle(self) -> None:
        """Wait for all work that the device was given and nobody has waited for, at a stream's end."""
        ...

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """An overlay for this device's frames."""
        ...


DEVICES = {"cpu": "cliprl.pipeline.devices.cpu", "cuda": "cliprl.pipeline.cuda.factory"}


def open_device(name: str, say: Callable[[str], None] = ignore_message) -> Device:
    """The device called `name`. `say` is told what takes time at start-up.

    Raises UsageError for one this version does not have, EngineError with the reason where this machine can't serve it.
    """
    if name not in DEVICES:
        raise UsageError(f"unknown device '{name}': this version runs on {', '.join(DEVICES)}")
    device: Device = import_module(DEVICES[name]).open_device(say)
    return device
