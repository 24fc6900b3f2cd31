"""Image files: their kind by their first bytes, and those that libav can't read."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

# The first bytes of a file, and libav's decoder for it.
_SIGNATURES = (
    (b"\xff\xd8\xff", "mjpeg"),
    (b"\x89PNG", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"RIFF", "webp"),
)
_HEAD = 32
_JPEG_END = b"\xff\xd9"
_TIFF_ENTRY, _COMPRESSION = 12, 259
# The version of BigTIFF, with offsets of 64 bits, which libav does not know.
_BIG_TIFF = (b"+\0", b"\0+")
# JPEG inside TIFF, of which libav makes a black image without an error.
_TIFF_JPEG = (6, 7)
# A WebP of the extended kind, and the bit of its flags that marks an animation.
_EXTENDED_WEBP, _ANIMATED = slice(8, 16), 2


def codec_of(data: bytes) -> str | None:
    """libav's decoder for an image that begins with `data`; None for what is none of these kinds."""
    return next((codec for start, codec in _SIGNATURES if data.startswith(start)), None)


def is_still(path: Path) -> bool:
    """Whether a file is of a kind that holds images alone, never a stream: TIFF or WebP."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return codec_of(head) == "tiff" or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def is_animated_webp(data: bytes) -> bool:
    """Whether a WebP holds an animation, for which libav has no decoder."""
    return (
        data.startswith(b"RIFF") and data[_EXTENDED_WEBP] == b"WEBPVP8X" and bool(data[20:21] and data[20] & _ANIMATED)
    )


def is_whole(data: bytes) -> bool:
    """Whether a JPEG is complete; the decoders of other kinds detect truncation."""
    return codec_of(data) != "mjpeg" or _JPEG_END in data[-64:]


def without_libav(data: bytes) -> av.VideoFrame | None:
    """A BigTIFF, or a TIFF that holds JPEG, decoded by OpenCV, upright; None for any other file, and for one that is damaged."""
    if codec_of(data) != "tiff" or not (data[2:4] in _BIG_TIFF or _compression(data) in _TIFF_JPEG):
        return None
    bgr: Any = None
    with suppress(cv2.error):  # more pixels than OpenCV takes
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if bgr is None else av.VideoFrame.from_ndarray(bgr, "bgr24")


def pages_of_tiff(data: bytes) -> int:
    """Return the number of images in a TIFF; 1 if unknown, as for BigTIFF."""
    if data[2:4] in _BIG_TIFF:
        return 1
    order, at, seen = _byte_order(data), 4, set[int]()
    try:
        while (start := struct.unpack_from(order + "I", data, at)[0]) and start not in seen:
            (count,) = struct.unpack_from(order + "H", data, start)
            at = start + 2 + count * _TIFF_ENTRY
            struct.unpack_from(order + "I", data, at)  # a page whose directory is cut off does not count
            seen.add(start)
    except struct.error:
        pass
    return max(len(seen), 1)


def images_of_png(data: bytes) -> int:
    """Return the number of images in a PNG: one, or those of an animation, which it states before its first image."""
    at = data.find(b"acTL", 0, data.find(b"IDAT"))
    return int.from_bytes(data[at + 4 : at + 8]) if at > 0 else 1


def _byte_order(data: bytes) -> str:
    return "<" if data.startswith(b"II") else ">"


def _compression(data: bytes) -> int:
    """Return the compression number of a TIFF; 0 if unknown."""
    order = _byte_order(data)
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for index in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", data, start + 2 + index * _TIFF_ENTRY)
            if tag == _COMPRESSION:
                return int(value)
    except struct.error:
        pass
    return 0
