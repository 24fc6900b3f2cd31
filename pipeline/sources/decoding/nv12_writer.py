"""Conversion of frames of any format to NV12 planes. Matrix and range change only together with the color tags."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from cliprl.pipeline.core.color import FULL_RANGE_TAG, UNSPECIFIED, ColorSpace, rgb_to_yuv_matrix
from cliprl.pipeline.core.frame import Plane

# What an RGB frame becomes: limited range, tagged (AVCOL_SPC_BT709 or BT2020_NCL, AVCOL_RANGE_MPEG).
_SPACE_TAG = {"bt601": 6, "bt709": 1, "bt2020": 9}
_BT2020_PRIMARIES = 9
_LIMITED_RANGE_TAG = 1
_KNOWN_SPACES = (1, 5, 6, 9, 10)


class _Tags(Protocol):
    """The color tags of a decoder's context."""

    color_primaries: int
    color_trc: int


def is_rgb(image: av.VideoFrame) -> bool:
    """Whether a frame is RGB or the like, so that any Y'CbCr matrix and range can be chosen for it."""
    layout = image.format
    return layout.is_rgb or layout.has_palette or layout.is_bayer or layout.name.startswith(("mono", "xyz"))


# The tags rarely change within a stream.
_color_from_tags = lru_cache(maxsize=16)(ColorSpace.from_tags)


def image_color(image: av.VideoFrame, context: _Tags) -> ColorSpace:
    """The color of the planes that `PlaneWriter.write` makes of a frame.

    Y'CbCr keeps its tags. RGB becomes limited range in the matrix it is tagged with, BT.2020 with those primaries, else BT.709.
    The JPEG formats, TIFF and gray count as full range where they are not tagged, as in libswscale, and are tagged so; TIFF is
    BT.601, and gray, which is the same in every matrix, is tagged BT.709: what comes after it may have colors.
    """
    space, range_ = int(image.colorspace), int(image.color_range)
    # The context may be ahead of the frame by some.
    primaries = int(getattr(image, "color_primaries", context.color_primaries))
    transfer = int(getattr(image, "color_trc", context.color_trc))
    if is_rgb(image):
        untagged = "bt2020" if primaries == _BT2020_PRIMARIES else "bt709"
        matrix = _color_from_tags(0, space, 0).matrix if space in _KNOWN_SPACES else untagged
        return ColorSpace(matrix, False, _SPACE_TAG[matrix], _LIMITED_RANGE_TAG, primaries, transfer)
    gray, tiff = image.format.name.startswith(("gray", "ya")), getattr(context, "name", "") == "tiff"
    if range_ == 0 and (gray or tiff or image.format.name.startswith("yuvj")):
        range_ = FULL_RANGE_TAG
    if space not in _KNOWN_SPACES and (gray or tiff):
        space = _SPACE_TAG["bt709" if gray else "bt601"]
    return _color_from_tags(image.height, space or UNSPECIFIED, range_, primaries, transfer)


class RgbWriter:
    """Converts RGB frames to NV12 planes, in scratch memory that it keeps."""

    def __init__(self) -> None:
        self._yuv = self._half = np.empty((0, 0, 3), np.uint8)

    def write(self, rgb: Plane, luma: Plane, chroma: Plane, color: ColorSpace) -> None:
        """Write uint8 (H, W, 3) RGB into the planes. Chroma is the mean of 2x2 samples, edges repeated where a size is odd."""
        matrix, offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
        (height, width), (rows, columns, _) = luma.shape, chroma.shape
        self._yuv, self._half = _scratch(self._yuv, height, width), _scratch(self._half, rows, columns)
        cv2.transform(rgb, np.column_stack([matrix, offset]), self._yuv)
        cv2.extractChannel(self._yuv, 0, luma)
        even: Any = self._yuv
        if height % 2 or width % 2:
            even = cv2.copyMakeBorder(even, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        cv2.resize(even, (columns, rows), self._half, interpolation=cv2.INTER_AREA)
        cv2.mixChannels([self._half], [chroma], [1, 0, 2, 1])


def _scratch(memory: Plane, height: int, width: int) -> Plane:
    return memory if memory.shape[:2] == (height, width) else np.empty((height, width, 3), np.uint8)


class PlaneWriter:
    """Writes decoded frames into NV12 planes: 8-bit 4:2:0 bit for bit, the rest through one swscale reformatter."""

    on_host = True

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._rgb = RgbWriter()

    def write(self, image: av.VideoFrame, luma: Plane, chroma: Plane, color: ColorSpace) -> None:
        """Write `image` into luma (H, W) and chroma (ceil(H/2), ceil(W/2), 2). `color` is its `image_color`, of RGB any."""
        name = image.format.name
        if is_rgb(image):
            packed = self._reformat(image, "rgb24")
            self._rgb.write(plane_array(packed, 0, 3), luma, chroma, color)
            return
        if name in ("yuv420p", "yuvj420p", "nv12", "gray"):
            even = image
        elif name.startswith(("gray", "ya")):
            even = self._reformat(image, "gray")
        elif image.format.components[0].bits > 8:
            _copy_deep(self._reformat(image, "yuv420p10le"), luma, chroma)
            return
        else:
            even = self._reformat(image, "yuvj420p" if name.startswith("yuvj") else "yuv420p")
        _copy(even, luma, chroma)

    def _reformat(self, image: av.VideoFrame, name: str) -> av.VideoFrame:
        """Another layout of the same samples: same size, same matrix, same range."""
        if image.format.name == name:
            return image
        range_ = int(image.color_range)
        return self._reformatter.reformat(image, format=name, src_color_range=range_, dst_color_range=range_)


def _copy(image: av.VideoFrame, luma: Plane, chroma: Plane) -> None:
    np.copyto(luma, plane_array(image, 0))
    name = image.format.name
    if name == "gray":
        chroma.fill(128)
    elif name == "nv12":
        np.copyto(chroma, plane_array(image, 1, 2))
    else:
        cv2.merge((plane_array(image, 1), plane_array(image, 2)), chroma)


def _copy_deep(image: av.VideoFrame, luma: Plane, chroma: Plane) -> None:
    """10 bits to 8, rounded to nearest; libswscale's own conversion is a step too dark here and there."""
    deep = [plane_array(image, index, 2).view(np.uint16)[..., 0] for index in range(3)]
    cv2.convertScaleAbs(deep[0], luma, alpha=1 / 4)
    cv2.merge([cv2.convertScaleAbs(plane, alpha=1 / 4) for plane in deep[1:]], chroma)


def plane_array(image: av.VideoFrame, index: int, samples: int = 1) -> Plane:
    """A plane of a frame as a view of bytes (lines, columns[, samples]), the padding of its lines left out."""
    plane: Any = image.planes[index]
    stride = plane.line_size
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(stride))
    if stride < 0:  # stored bottom line first
        lines = lines[::-1]
    view = lines[:, : plane.width * samples]
    return view if samples == 1 else view.reshape(plane.height, plane.width, samples)
