"""Frames of arrays, such as the images of a robot's camera or of a simulator."""

from __future__ import annotations

from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.pipeline.core.color import FULL_RANGE_TAG, ColorSpace
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.sources.decoding.nv12_writer import RgbWriter

_BT709_TAG = 1
# Full range has the smallest error on the way from RGB through Y'CbCr.
FRAME_COLOR = ColorSpace("bt709", True, _BT709_TAG, FULL_RANGE_TAG)


def check_rgb(image: Any) -> None:
    """Raise UsageError unless `image` is a uint8 array (H, W, 3) with pixels."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise UsageError(
            f"the image is {dtype} with the shape {shape}: give uint8 (height, width, 3) in RGB, gray values repeated in the "
            "three channels, and values of 0 to 1 times 255"
        )


def frame_of_image(image: NDArray[np.uint8], index: int = 0, *, rate: float | Fraction = 25) -> Frame:
    """Return an image uint8 (H, W, 3) RGB as frame `index` of a stream of `rate` frames a second. The array is copied.

    A `Segmenter` takes frames for consecutive, of which noisy ones help each other, whose indices are. Raises UsageError for
    another type or shape, an index that is no whole number from 0 on, or a rate below 0.001; BGR gives wrong masks without an
    error.
    """
    check_rgb(image)
    if not isinstance(index, Integral) or index < 0:
        raise UsageError(
            f"the index {index!r} is no whole number: give the number of the frame in its stream, from 0 on"
        )
    index = int(index)  # NumPy's integers are written to no JSON
    # Rates of video have denominators to 1001; libav takes no longer fractions than of 32 bits.
    if not isinstance(rate, Real) or not 0.001 <= rate <= 1e6:
        raise UsageError(
            f"the rate {rate!r} is none of video: give an int, a float or a Fraction of 0.001 to 1000000 a second"
        )
    time_base = 1 / Fraction(rate if isinstance(rate, Fraction) else float(rate)).limit_denominator(1001)
    frame = Frame(*allocate_planes(*image.shape[:2]), index, time_base, index, FRAME_COLOR, duration=1)
    RgbWriter().write(np.ascontiguousarray(image), frame.luma, frame.chroma, FRAME_COLOR)
    return frame
