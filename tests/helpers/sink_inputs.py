"""Frames, segmentations and an output specification that tests of sinks share."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, StreamInfo
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport

CLASSES = (
    ClassSpec("background", (0, 0, 0), "background"),
    ClassSpec("liver", (255, 114, 114), "tissue"),
    ClassSpec("grasper, «große»", (170, 255, 0), "instrument"),
    ClassSpec("hook", (1, 2, 3), "instrument"),
)
HEIGHT, WIDTH = 90, 120
SCENE = OutputSpec(StreamInfo("clip.mp4", HEIGHT, WIDTH, Fraction(1, 90000), Fraction(25), 3, 0.12), CLASSES)
Labels = NDArray[np.uint8]


def make_frame(index: int, size: tuple[int, int] = (HEIGHT, WIDTH), **fields: Any) -> Frame:
    luma, chroma = allocate_planes(*size)
    luma[:], chroma[:] = 100, 128
    return Frame(luma, chroma, 3600 * index - 500, Fraction(1, 90000), index, duration=3600, **fields)


def segment(labels: Labels, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Segmentation:
    """A segmentation that is 0.7 sure of `labels`, in a view that the picture fills."""
    probabilities = np.full((len(CLASSES), *labels.shape), 0.1, np.float32)
    np.put_along_axis(probabilities, labels[None].astype(np.intp), np.float32(0.7), axis=0)
    view = full_viewport(*size, 4 * labels.shape[0], 4 * labels.shape[1])
    return Segmentation(labels, probabilities, view, 0.7, 2, 0.015625)


def grid(seed: int) -> Labels:
    """Labels on a 12x16 grid: some blobs of the classes 0 to 2, never 3."""
    noise = np.random.default_rng(seed).random((3, 4, 4))
    return np.stack([cv2.resize(n, (16, 12)) for n in noise]).argmax(axis=0).astype(np.uint8)


def write_all(sink: Sink, count: int = 3) -> list[tuple[Frame, Segmentation]]:
    items = [(make_frame(i), segment(grid(i))) for i in range(count)]
    write_items(sink, items)
    return items


def write_items(sink: Sink, items: list[tuple[Frame, Segmentation]]) -> None:
    with sink:
        for frame, segmentation in items:
            sink.write(frame, segmentation)


def read_png(path: Path) -> tuple[Labels, NDArray[np.uint8]]:
    """Indices and palette (256, 4) of an indexed PNG, by libav."""
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
        assert frame.format.name == "pal8"
        indices, palette = frame.to_ndarray()
        return indices, palette
