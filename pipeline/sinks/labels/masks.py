"""A folder of masks: an indexed PNG for each frame, and the classes. A folder of ids: a 16-bit PNG for each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.labels.folder_sink import FolderSink, replaced_folder
from cliprl.pipeline.sinks.labels.frame_labels import check_classes, frame_ids, frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sinks.labels.json_fields import describe_frame, frame_name
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink

# The end of the name of a folder of ids.
IDS_SUFFIX = ".ids/"


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
        check_classes(self.target, self.spec, segmentation)
        name = None
        if segmentation is None:
            self._without += 1
        else:
            name = self._name(frame)
            self._masks.add(name, self.encode(frame, segmentation))
        self._frames.append({"mask_file_name": name} | describe_frame(frame))

    def encode(self, frame: Frame, segmentation: Segmentation) -> bytes:
        """Return the PNG of a frame."""
        return encode_png(frame_labels(frame, segmentation), self._palette)

    def _name(self, frame: Frame) -> str:
        """The mask's name; of a frame that is shown once more one with its index."""
        name = frame_name(frame)
        return f"{frame.index:06d}_{name}" if name in self._masks else name

    def _finish(self, whole: bool) -> None:
        if self._without:
            self.notes.append(f"{self._without} frames were not segmented and have no mask in '{self.target}'")
        super()._finish(whole)


class IdMaskSink(MaskSink):
    """A `MaskSink` with gray PNG files of 16 bits: a pixel is the id of the instrument that it shows, 0 for none."""

    def encode(self, frame: Frame, segmentation: Segmentation) -> bytes:
        """Return the PNG of a frame."""
        return cv2.imencode(".png", frame_ids(frame, segmentation), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


@register_sink(suffixes=("/",), shown="FOLDER/", help="masks as indexed PNG", replaces=replaced_folder)
def open_masks(target: str, spec: OutputSpec, settings: EncoderSettings) -> MaskSink:
    """Open a folder of masks."""
    return MaskSink(Path(target), spec)


@register_sink(
    suffixes=(IDS_SUFFIX,),
    shown="NAME.ids/",
    help="ids of the instruments as PNG, with --ids",
    replaces=replaced_folder,
)
def open_id_masks(target: str, spec: OutputSpec, settings: EncoderSettings) -> IdMaskSink:
    """Open a folder of ids."""
    return IdMaskSink(Path(target), spec)
