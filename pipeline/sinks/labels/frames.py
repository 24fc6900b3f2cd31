"""A folder of frames as PNG, without the overlay."""

from __future__ import annotations

from pathlib import Path

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.folder_sink import FolderSink, replaced_folder
from cliprl.pipeline.sinks.labels.json_fields import exported_name
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink


class FramesSink(FolderSink):
    """A PNG for every frame, upright and in its size, under the name by which label files refer to it."""

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become a folder of frames."""
        super().__init__(target, spec)
        self._converter = FrameConverter()

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        self._masks.add(exported_name(frame, self.spec), self._converter.png(frame))


@register_sink(suffixes=(".frames/",), help="frames as PNG", replaces=replaced_folder, writes_frames=True)
def open_frames(target: str, spec: OutputSpec, settings: EncoderSettings) -> FramesSink:
    """Open a folder of frames."""
    return FramesSink(Path(target), spec)
