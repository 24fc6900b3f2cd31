"""Devices by name: each opens the parts of a stream whose frames lie in its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from cliprl.engines import Bundle, ClassSpec, UsageError, ignore_message
from cliprl.pipeline.core.frame import Profiler
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks.video.live_encoding import LiveCodecs
from cliprl.pipeline.sources.base import FrameSource


class Device(Protocol):
    """A factory of sources, sinks, segmenter and overlay that work together on one device, for one video stream.

    `notes`: sentences on what was chosen at start-up, and why. `profiler` marks ranges of work for the device's profiler.
    """

    name: str
    notes: tuple[str, ...]
    profiler: Profiler

    def source(
        self, name: str, log: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """Open a source as `open_source` does, with a decoder of the device if there is one for it.

        `log` receives the reason if there is none. `stream` as for `open_source`. The frames must be read into a ring of this
        device (see `FrameSegmenter.ring`).
        """

    def sink(self, target: str, spec: OutputSpec, **settings: Any) -> Sink:
        """Open an output as `open_sink` does, with an encoder of the device if there is one for it.

        An output that the device encodes reads no planes in host memory; if all outputs are like that, no frame is copied there.
        """

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """Create a segmenter for frames of this device. Settings as for `Segmenter`."""

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """Create an overlay for frames of this device."""


DEVICES = {"cpu": "cliprl.pipeline.devices.cpu", "cuda": "cliprl.pipeline.cuda.factory"}


def device_opener(name: str) -> Callable[..., Device]:
    """Return the function that opens the device called `name`, which can be pickled for another process.

    Raises UsageError for an unknown name, EngineError with the reason if the device is not available on this machine. The
    device is not opened.
    """
    module = _module_of(name)
    module.check_device()
    opener: Callable[..., Device] = module.open_device
    return opener


def live_codecs(name: str) -> LiveCodecs:
    """Return the codecs of the device called `name` for live streams. Nothing is opened yet."""
    found: LiveCodecs = getattr(_module_of(name), "hardware_codecs", LiveCodecs)()
    return found


def open_device(name: str, log: Callable[[str], None] = ignore_message) -> Device:
    """Open the device called `name`. `log` receives messages about steps that take time.

    Raises UsageError for an unknown name, EngineError with the reason if the device is not available on this machine.
    """
    device: Device = _module_of(name).open_device(log)
    return device


def _module_of(name: str) -> Any:
    if name not in DEVICES:
        raise UsageError(f"unknown device '{name}': this version runs on {', '.join(DEVICES)}")
    return import_module(DEVICES[name])
