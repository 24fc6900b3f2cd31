"""A folder of frames and polygons in the format of YOLO segmentation."""

from __future__ import annotations

import json
from pathlib import Path

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.folder_sink import FolderSink, replaced_folder
from cliprl.pipeline.sinks.labels.frame_labels import check_classes
from cliprl.pipeline.sinks.labels.json_fields import exported_name
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.shapes.polygons import Ring, center_polygons
from cliprl.pipeline.sinks.shapes.regions import labelled_classes, regions


class YoloSink(FolderSink):
    """`images/NAME.png` without the overlay, `labels/NAME.txt` and `data.yaml`, as ultralytics trains on.

    A line of a text file is a class, numbered from 0 without the background, and one polygon in shares of width and height.
    Frames that were not segmented are left out; one without classes has an empty text file.
    """

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become a data set."""
        super().__init__(target, spec)
        self._converter, self._classes = FrameConverter(), labelled_classes(spec.classes)
        self._numbers = {i: number for number, i in enumerate(self._classes)}

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self.spec, segmentation)
        if segmentation is None:
            return
        if "data.yaml" not in self._masks:
            names = "".join(f"  {self._numbers[i]}: {json.dumps(one.name)}\n" for i, one in self._classes.items())
            self._masks.add("data.yaml", f"train: images\nval: images\nnames:\n{names}".encode())
        name = exported_name(frame, self.spec)
        height, width = upright_size(frame)
        lines = [
            f"{self._numbers[region.class_id]} {' '.join(f'{v:.6f}' for v in _shares(ring, width, height))}\n"
            for region in regions(frame, segmentation, self._classes)
            for ring in center_polygons(region.mask)
        ]
        self._masks.add(f"images/{name}", self._converter.png(frame))
        self._masks.add(f"labels/{Path(name).with_suffix('.txt').name}", "".join(lines).encode())


def _shares(ring: Ring, width: int, height: int) -> list[float]:
    """Return the vertices as shares of the size, at the centers of their pixels."""
    shares: list[float] = ((ring + 0.5) / (width, height)).ravel().tolist()
    return shares


@register_sink(suffixes=(".yolo/",), help="YOLO segmentation", replaces=replaced_folder, writes_frames=True)
def open_yolo(target: str, spec: OutputSpec, settings: EncoderSettings) -> YoloSink:
    """Open a folder of YOLO labels."""
    return YoloSink(Path(target), spec)
