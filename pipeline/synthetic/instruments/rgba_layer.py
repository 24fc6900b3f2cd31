"""A transparent image that instruments are drawn on, with their labels, from back to front."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.synthetic.instruments.sprites import Sprite
from cliprl.pipeline.synthetic.raster import Field, Image, RasterShape, blur

Matrix = NDArray[np.float64]  # 3x3, acting on homogeneous pixel positions
Box = tuple[int, int, int, int]  # left, top, right, bottom


def shift(x: float, y: float) -> Matrix:
    """The translation by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def rotation_2d(angle: float, scale_x: float = 1, scale_y: float = 1) -> Matrix:
    """A rotation by `angle`, after a scaling of each axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * scale_x, -s * scale_y, 0], [s * scale_x, c * scale_y, 0], [0, 0, 1]], np.float64)


def project(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where `matrix` takes points (N, 2)."""
    moved = np.c_[points, np.ones(len(points))] @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:], np.float64)


class RgbaLayer:
    """rgba: uint8 (H, W, 4), color times alpha. labels, owner: uint8 (H, W); owner is the drawn object's number, from 1.

    Without `labeled`, labels and owner have no pixels and are not drawn.
    """

    def __init__(self, shape: RasterShape, *, labeled: bool = True) -> None:
        self._labeled = labeled
        self.rgba = np.zeros((*shape, 4), np.uint8)
        self.labels, self.owner = (np.zeros(shape if labeled else (0, 0), np.uint8) for _ in range(2))

    def _box(self, corners: NDArray[np.float64], pad: int = 1) -> Box | None:
        """The whole pixels that hold `corners`, within the image; None where there are none."""
        height, width = self.rgba.shape[:2]
        low, high = np.floor(corners.min(0)) - pad, np.ceil(corners.max(0)) + pad + 1
        left, top = max(int(low[0]), 0), max(int(low[1]), 0)
        right, bottom = min(int(high[0]), width), min(int(high[1]), height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _put(self, patch: Image, box: Box, label: int, owner: int, softness: float) -> None:
        left, top, right, bottom = box
        area = (slice(top, bottom), slice(left, right))
        if self._labeled:
            solid = patch[..., 3] > 127
            np.copyto(self.labels[area], np.uint8(label), where=solid)
            np.copyto(self.owner[area], np.uint8(owner), where=solid)
        below, patch = self.rgba[area], np.asarray(blur(patch, softness), np.uint8)
        clear = cv2.bitwise_not(cv2.extractChannel(patch, 3))
        hidden = cv2.merge([clear, clear, clear, clear])
        self.rgba[area] = cv2.add(cv2.multiply(below, hidden, scale=1 / 255), patch)

    def sprite(self, sprite: Sprite, matrix: Matrix, label: int, owner: int, softness: float = 0) -> None:
        """Draw a part; `matrix` takes its units (not its pixels) to the image. `softness`: blur in pixels, not of labels."""
        placed = matrix @ sprite.to_units
        corners = placed @ sprite.corners
        box = self._box((corners[:2] / corners[2]).T, 1 + int(3 * softness))
        if box is None:
            return
        size = (box[2] - box[0], box[3] - box[1])
        placed[:2] -= np.array([box[:2]]).T * placed[2]
        if placed[2, 0] == placed[2, 1] == 0:  # several times faster
            patch = cv2.warpAffine(sprite.rgba, placed[:2], size, flags=cv2.INTER_LINEAR)
        else:
            patch = cv2.warpPerspective(sprite.rgba, placed, size, flags=cv2.INTER_LINEAR)
        self._put(np.asarray(patch, np.uint8), box, label, owner, softness)

    def line(self, points: NDArray[np.float64], width: float, color: Field, label: int, owner: int) -> None:
        """Draw a thread through `points` (N, 2) in pixels, `width` pixels thick, lit from its side."""
        box = self._box(points, 2 + int(width))
        if box is None:
            return
        mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
        lit = np.zeros_like(mask)
        pixels = np.round((points - [box[0], box[1]]) * 16).astype(np.int32)
        cv2.polylines(mask, [pixels], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
        cv2.polylines(lit, [pixels - int(3 * width)], False, 255, max(1, round(width / 3)), cv2.LINE_AA, 4)
        shine = np.minimum(lit, mask).astype(np.float32)[..., None] * np.float32(0.35)
        patch = np.empty((*mask.shape, 4), np.uint8)
        patch[..., :3] = np.clip(color + shine, 0, 255) * (mask.astype(np.float32)[..., None] / 255)
        patch[..., 3] = mask
        self._put(patch, box, label, owner, 0)
