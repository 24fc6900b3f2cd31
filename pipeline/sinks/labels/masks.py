"""A folder of masks: an indexed PNG for each frame, and the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.labels.folder_sink import FolderSink, replaced_folder
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sinks.labels.json_fields import describe_frame, frame_name
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink


class MaskSink(FolderSink):
    """A PNG for every segmented frame, in its size: pixel values are class ids, the palette the class colors.

    It is called `INDEX_PTS.png`; of an image file `NAME.png`, so that both sort alike. `classes.json` holds `format_version`,
    `stream`, `classes`, `frames`, which leads from each mask to its image file, and the list of the files; the schema "masks"
    describes it. A frame without a segmentation gets no mask.
    """

    needs_planes = False

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become a folder of masks."""
        super().__init__(target, spec)
        self._palette = [one.color for one in spec.classes]
        self._without = 0
        self._frames: list[dict[str, Any]] = []

    def about(self) -> dict[str, Any]:
        """Return the frames of the masks."""
        return {"frames": self._frames}

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        name = None
        if segmentation is None:
            self._without += 1
        else:
            name = self._name(frame)
            self._masks.add(name, encode_png(frame_labels(frame, segmentation), self._palette))
        self._frames.append({"mask_file_name": name} | describe_frame(frame))

    def _name(self, frame: Frame) -> str:
        """The mask's name; of a frame that is shown once more one with its index."""
        name = frame_name(frame)
        return f"{frame.index:06d}_{name}" if name in self._masks else name

    def _finish(self, whole: bool) -> None:
        if self._without:
            self.notes.append(f"{self._without} frames were not segmented and have no mask in '{self.target}'")
        super()._finish(whole)


@register_sink(suffixes=("/",), shown="FOLDER/", help="masks as indexed PNG", replaces=replaced_folder)
def open_masks(target: str, spec: OutputSpec, settings: EncoderSettings) -> MaskSink:
    """Open a folder of masks."""
    return MaskSink(Path(target), spec)
