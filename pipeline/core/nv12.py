"""Rotation, reflection and color conversion of NV12 planes, and the geometry of frames as displayed."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv_matrix, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.viewport import Box

# OpenCV's codes for (rows reversed, columns reversed).
_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}


def turn_planes(luma: Plane, chroma: Plane, *, mirrored: bool, turns: int) -> tuple[Plane, Plane]:
    """Mirror NV12 planes left to right where `mirrored`, then turn them by `turns` quarter turns counter-clockwise.

    Returns the planes given where there is nothing to do, else new ones; an odd number of turns exchanges height and width.
    A reversed side of an odd length moves chroma by half a sample, which is interpolated.
    """
    turns %= 4
    transposed, rows, columns = turns % 2 == 1, turns in (1, 2), turns in (2, 3)
    if mirrored and transposed:  # the columns of the image given are the rows of the turned one
        rows = not rows
    elif mirrored:
        columns = not columns
    if transposed:
        luma, chroma = _array(cv2.transpose(luma)), _array(cv2.transpose(chroma))
    if (rows, columns) in _FLIPS:
        luma, chroma = (_array(cv2.flip(plane, _FLIPS[rows, columns])) for plane in (luma, chroma))
        for axis, is_reversed in enumerate((rows, columns)):
            if is_reversed and luma.shape[axis] % 2:
                chroma = _half_sample_later(chroma, axis)
    return luma, chroma


def _half_sample_later(chroma: Plane, axis: int) -> Plane:
    """The mean of each sample and the next along `axis`; the last stays."""
    samples = np.moveaxis(chroma.astype(np.uint16), axis, 0)
    samples[:-1] = (samples[:-1] + samples[1:] + 1) // 2
    return np.ascontiguousarray(np.moveaxis(samples, 0, axis), np.uint8)


def same_values(a: ColorSpace, b: ColorSpace) -> bool:
    """Whether the code values of two colors mean the same, whatever their tags."""
    return (a.matrix, a.full_range) == (b.matrix, b.full_range)


def recolor(luma: Plane, chroma: Plane, before: ColorSpace, after: ColorSpace) -> None:
    """Convert NV12 planes from the matrix and range of `before` to those of `after`, in place, rounded to nearest.

    What is outside the range of `after` is clipped. Primaries and transfer function stay.
    """
    if same_values(before, after):
        return
    to_rgb, to_rgb_offset = yuv_to_rgb_matrix(before.matrix, before.full_range)
    to_yuv, to_yuv_offset = rgb_to_yuv_matrix(after.matrix, after.full_range)
    matrix = np.column_stack([to_yuv @ to_rgb, to_yuv @ to_rgb_offset + to_yuv_offset])
    height, width = luma.shape
    if before.matrix == after.matrix:
        np.copyto(luma, _array(cv2.LUT(luma, _clip(matrix[0, 0] * np.arange(256) + matrix[0] @ [0, 128, 128, 1]))))
    else:
        size = (2 * chroma.shape[1], 2 * chroma.shape[0])
        large = cv2.resize(chroma, size, interpolation=cv2.INTER_LINEAR).reshape(size[1], size[0], 2)[:height, :width]
        samples = np.dstack([luma, large]).astype(np.float32)
        np.copyto(luma, _clip(_array_of(cv2.transform(samples, matrix[:1]), (height, width))))
    # Gray has the same chroma in every matrix: luma has no part in it.
    pairs = cv2.transform(chroma.astype(np.float32), matrix[1:, 1:])
    np.copyto(chroma, _clip(_array_of(pairs, chroma.shape)))


def check_frame(frame: object) -> None:
    """Raise UsageError for what is no frame, such as an array."""
    if not isinstance(frame, Frame):
        raise UsageError(f"a {type(frame).__name__} is no frame: give one of a source, or frame_of_image(RGB array)")


def upright_size(stream: Frame | StreamInfo) -> tuple[int, int]:
    """Return height and width of the image as displayed."""
    size = (stream.height, stream.width)
    return size[::-1] if stream.rotation % 180 else size


def upright_box(box: Box, frame: Frame) -> Box:
    """Map a box (left, top, width, height) from the planes of a frame to the image as displayed."""
    left, top, width, height = box
    right, bottom = frame.width - left - width, frame.height - top - height
    if frame.rotation == 90:
        return top, right, height, width
    if frame.rotation == 180:
        return right, bottom, width, height
    if frame.rotation == 270:
        return bottom, left, height, width
    return box


def stored_points(points: NDArray[np.floating], size: tuple[float, float], rotation: int) -> NDArray[np.float64]:
    """Map points (N, 2) of (x, y) from the image as displayed to the planes of a frame.

    size: width and height of the planes, in the unit of the points. rotation: of the frame, in degrees.
    """
    (x, y), (width, height) = np.asarray(points, np.float64).T, size
    turned = {90: (width - y, x), 180: (width - x, height - y), 270: (y, height - x)}
    return np.stack(turned.get(rotation, (x, y)), axis=1)


def upright(frame: Frame) -> Frame:
    """Return the frame itself if it has no rotation, else a rotated copy whose planes belong to no slot."""
    if not frame.rotation:
        return frame
    luma, chroma = turn_planes(frame.luma, frame.chroma, mirrored=False, turns=frame.rotation // 90)
    aspect = 1 / frame.sample_aspect if frame.sample_aspect and frame.rotation % 180 else frame.sample_aspect
    return replace(frame, luma=luma, chroma=chroma, rotation=0, sample_aspect=aspect, slot=-1)


def _array(values: object) -> Plane:
    return np.asarray(values, np.uint8)


def _array_of(values: object, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(shape)


def _clip(values: NDArray[np.floating]) -> Plane:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
