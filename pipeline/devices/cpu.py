"""The `cpu` device: frames in host memory, libav for video, OpenCV for pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from cliprl.engines import Bundle, ClassSpec, ignore_message
from cliprl.pipeline.core.frame import Profiler
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import FrameSource, open_source


class CpuDevice:
    """Opens the parts of a stream that runs on the CPU. See `Device`."""

    name = "cpu"
    notes: tuple[str, ...] = ()
    profiler: Profiler = nullcontext

    def source(
        self, name: str, log: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """Open a source with `open_source`."""
        return open_source(name, stream=stream)

    def sink(self, target: str, spec: OutputSpec, **settings: Any) -> Sink:
        """Open a sink with `open_sink`."""
        return open_sink(target, spec, **settings)

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """Create a `Segmenter`."""
        return Segmenter(bundle, **settings)

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """Create an `Overlay`."""
        return Overlay(classes, style)


def open_device(log: Callable[[str], None] = ignore_message) -> CpuDevice:
    """Return the CPU device, which is always available."""
    return CpuDevice()


def check_device() -> None:
    """Do nothing: the CPU is always available."""
