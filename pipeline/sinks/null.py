"""The sink that keeps nothing."""

from __future__ import annotations

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink

NULL = "null:"


class NullSink(BaseSink):
    """Counts frames, for runs that only measure or display."""

    needs_planes = False

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Count the frame."""
        self.frames += 1

    def close(self) -> None:
        """Do nothing."""


@register_sink(prefixes=(NULL,), help="no output, for measurements")
def open_null(target: str, spec: OutputSpec, settings: EncoderSettings) -> NullSink:
    """Open the sink for "null:"."""
    if target != NULL:
        raise UsageError(f"'{target}' names no kind of output: write {NULL} without more")
    return NullSink()
