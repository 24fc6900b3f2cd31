"""The pipeline's segmenter for images instead of video frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import Bundle, UsageError, naming_parts
from cliprl.models.data.sample import Image
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources.decoding.nv12_writer import RgbWriter

# Full range has the smallest error on the way from RGB through Y'CbCr.
FRAME_COLOR = ColorSpace("bt709", full_range=True)
FRAME_TIME = Fraction(1, 25)


def check_rgb(image: Any) -> None:
    """Raise UsageError unless `image` is a uint8 array (H, W, 3) with pixels."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise UsageError(
            f"the image is {dtype} with the shape {shape}: give uint8 (height, width, 3) in RGB, gray values repeated in the "
            "three channels, and values of 0 to 1 times 255"
        )


def frame_of_image(image: Image, index: int = 0) -> Frame:
    """Return an image uint8 (H, W, 3) RGB as a frame."""
    frame = Frame(*allocate_planes(*image.shape[:2]), index, FRAME_TIME, index, FRAME_COLOR)
    RgbWriter().write(np.ascontiguousarray(image), frame.luma, frame.chroma, FRAME_COLOR)
    return frame


class ImageSegmenter(Segmenter):
    """The pipeline's segmenter, with its arguments, for RGB images. Its masks name the likeliest part, also an unsure one."""

    def __init__(self, bundle: Bundle | str | Path, **settings: Any) -> None:
        self._index = 0
        super().__init__(naming_parts(bundle), **settings)

    def segment(self, image: Image) -> Segmentation:
        """Segment the next image of a clip, uint8 (H, W, 3) RGB. Raises UsageError for another type or shape."""
        check_rgb(image)
        self._index += 1
        return self(frame_of_image(image, self._index - 1))

    def reset(self) -> None:
        """Discard the state of the last clip and restart the frame count."""
        super().reset()
        self._index = 0
