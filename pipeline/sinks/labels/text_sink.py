"""The base of label files that are text: a head, one piece for each frame, and a tail."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.labels.frame_labels import check_classes
from cliprl.pipeline.sinks.partial_file_sink import PartialFileSink
from cliprl.pipeline.sinks.shapes.regions import Region, labelled_classes, regions


class TextLabelSink(PartialFileSink):
    """A label file that is written frame by frame, so that memory does not grow."""

    needs_planes = False

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Create the partial file. Raises UsageError if it can't be."""
        super().__init__(target)
        self.spec, self.classes = spec, labelled_classes(spec.classes)

    @abstractmethod
    def head(self, frame: Frame) -> str:
        """Return the text before the first frame, which is `frame`."""

    @abstractmethod
    def text(self, frame: Frame, found: list[Region] | None) -> str:
        """Return the text of a frame. `found` is None if the frame was not segmented."""

    @abstractmethod
    def tail(self) -> str:
        """Return the text after the last frame."""

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self.spec, segmentation)
        found = None if segmentation is None else regions(frame, segmentation, self.classes)
        head = "" if self.frames else self.head(frame)
        self._file.write((head + self.text(frame, found)).encode("utf-8", "backslashreplace"))

    def _last_bytes(self) -> bytes:
        return self.tail().encode()
