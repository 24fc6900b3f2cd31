"""Masks as COCO JSON: one annotation for each class in each frame, as compressed run lengths or polygons."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.atomic_file import unwritable
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.frame_labels import check_classes
from cliprl.pipeline.sinks.labels.json_fields import describe_class, describe_stream, frame_name, image_name
from cliprl.pipeline.sinks.partial_file_sink import PartialFileSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.shapes.polygons import edge_polygons
from cliprl.pipeline.sinks.shapes.regions import Region, labelled_classes, regions
from cliprl.pipeline.sources.errors import redact

FORMAT_VERSION = 3


class CocoSink(PartialFileSink):
    """A file that `pycocotools.coco.COCO` reads.

    Sizes and masks are those of the frame as it is displayed, upright.

    `images`: id and frame_index (the frame's index), file_name (see `image_name`), mask_file_name (what MaskSink calls its
    mask), video (the stream's name, null for image files), pts, seconds, height, width, segmented. `categories`: the classes
    that are no background, numbered from 1, with their values in masks. `annotations`: for each class that a frame shows,
    segmentation in the displayed frame's size (compressed RLE with iscrowd 1, or polygons with iscrowd 0), area, bbox, score
    (the mean probability where the class won) and a track id: a class through the whole stream is one track; in a tracked
    stream each class of each instrument is annotated, and an instrument is one track. `info`: format_version and stream. See
    the schema "coco".

    Annotations go to the disk as they arrive, one a line, and the images into an unnamed file until the end, so that memory
    does not grow.
    """

    needs_planes = False

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Create the partial file. Raises UsageError if it can't be, CliprlError if the disk is full."""
        super().__init__(target)
        self._spec, self._classes = spec, labelled_classes(spec.classes)
        self._categories = {i: number for number, i in enumerate(self._classes, 1)}
        self._video, self._annotations = redact(spec.stream.name), 0
        try:
            self._images = tempfile.TemporaryFile(dir=self._file.target.parent)  # noqa: SIM115 (closed with the sink)
        except OSError as error:
            self._file.discard()
            raise unwritable(target, error) from error
        info = {"format_version": FORMAT_VERSION, "stream": describe_stream(spec.stream)}
        categories = [
            describe_class(i, spec) | {"id": self._categories[i], "mask_value": i, "supercategory": spec.kind}
            for i, spec in self._classes.items()
        ]
        self._head = f'{{"info": {json_text(info)},\n"categories": {json_text(categories)},\n"annotations": ['

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self._spec, segmentation)
        if not self.frames:
            self._file.write(self._head.encode())
        if segmentation is not None:
            text = "".join(self._line(annotation) for annotation in self._annotate(frame, segmentation))
            self._file.write(text.encode())
        height, width = upright_size(frame)
        image = {
            "id": frame.index,
            "file_name": image_name(frame, self._spec),
            "mask_file_name": frame_name(frame) if segmentation else None,
            "video": None if frame.file else self._video,
            "height": height,
            "width": width,
            "frame_index": frame.index,
            "pts": frame.pts,
            "seconds": frame.seconds,
            "segmented": segmentation is not None,
        }
        self._images.write(f"{',' if self.frames else ''}\n{json_text(image)}".encode())

    def _line(self, annotation: dict[str, Any]) -> str:
        # pycocotools takes an annotation id of 0 for none, so they count from 1.
        self._annotations += 1
        comma = "," if self._annotations > 1 else ""
        return f"{comma}\n{json_text({'id': self._annotations} | annotation)}"

    def _annotate(self, frame: Frame, segmentation: Segmentation) -> list[dict[str, Any]]:
        return [
            {
                "image_id": frame.index,
                "category_id": self._categories[region.class_id],
                "iscrowd": int(not self._spec.style.polygons),
                "score": region.score,
                "attributes": self._track(region),
            }
            | _encode(region.mask, self._spec.style.polygons)
            for region in regions(frame, segmentation, self._classes)
        ]

    def _track(self, region: Region) -> dict[str, int]:
        """Return the track: the class, or the instrument, whose tracks are numbered after those of the classes."""
        if region.instance:
            return {"track_id": len(self._categories) + region.instance, "instance_id": region.instance}
        return {"track_id": self._categories[region.class_id]}

    def _finish(self, whole: bool) -> None:
        self._file.write(b'\n],\n"images": [')
        self._images.seek(0)
        while block := self._images.read(1 << 20):
            self._file.write(block)
        self._images.close()
        super()._finish(whole)

    def _last_bytes(self) -> bytes:
        return b"\n]}\n"

    def _abandon(self) -> None:
        with suppress(OSError):  # what it still held in memory finds no room either
            self._images.close()
        super()._abandon()

    def _discard(self) -> None:
        self._images.close()
        super()._discard()


def _encode(mask: NDArray[np.bool_], polygons: bool) -> dict[str, Any]:
    """Return `area`, `bbox` and `segmentation` of a mask bool (H, W)."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))  # COCO's runs go down the columns
    box = [float(v) for v in coco_mask.toBbox(rle)]
    segmentation: Any = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    if polygons:
        segmentation = [polygon.round(2).ravel().tolist() for polygon in edge_polygons(mask)]
    return {"area": int(coco_mask.area(rle)), "bbox": box, "segmentation": segmentation}


@register_sink(suffixes=(".coco.json",), help="COCO annotations", refers_to_frames=True)
def open_coco(target: str, spec: OutputSpec, settings: EncoderSettings) -> CocoSink:
    """Open a COCO file."""
    return CocoSink(Path(target), spec)
