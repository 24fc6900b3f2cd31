"""Indexed PNG files: pixel values are class ids, the palette holds the class colors."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_png(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode labels (H, W) as a PNG with eight bits per pixel and a palette of at most 256 (R, G, B) colors."""
    image = Image.fromarray(labels)
    image.putpalette([channel for color in palette for channel in color])
    file = io.BytesIO()
    # Run-length compression only: it is fast, and masks consist of runs.
    image.save(file, "PNG", bits=8, compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
