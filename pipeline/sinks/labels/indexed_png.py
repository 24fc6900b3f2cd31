"""Indexed PNG files: pixel values are class ids, the palette their colours.

OpenCV writes no palettes. Format: PNG specification, third edition (W3C), sections 5.2 to 5.3, 10 and 11.2.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3


def encode_png(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """A PNG of colour type 3, eight bits a pixel, from labels (H, W) and one (R, G, B) for each of at most 256 ids."""
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter type: 0, none
    rows[:, 1:] = labels
    # Runs are all there is to find in a mask, and this strategy looks for nothing else.
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    data = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
    colors = bytes(channel for color in palette for channel in color)
    chunks = ((b"IHDR", header), (b"PLTE", colors), (b"IDAT", data), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
