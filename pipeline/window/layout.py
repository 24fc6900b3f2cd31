"""Layout of images in the window, and rendering of text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.overlay.text import drawable

_GAP = 4  # pixels between two images
_WEIGHT = 500


class ImageBox(NamedTuple):
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int


def arrange(sizes: Sequence[tuple[int, int]], width: int, height: int) -> list[ImageBox]:
    """Return boxes for images of `sizes` (width, height), side by side in a window, as large as their aspect allows."""
    room = max((width - _GAP * (len(sizes) - 1)) // len(sizes), 1)
    return [_fit(size, ImageBox(i * (room + _GAP), 0, room, height)) for i, size in enumerate(sizes)]


def _fit(size: tuple[int, int], room: ImageBox) -> ImageBox:
    scale = min(room.width / size[0], room.height / size[1])
    width, height = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    return ImageBox(room.left + (room.width - width) // 2, room.top + (room.height - height) // 2, width, height)


@lru_cache(maxsize=1)
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _width(text: str, size: int) -> int:
    box: Sequence[int] = cv2.getTextSize((0, 0), drawable(text), (0, 0), _font(), size, _WEIGHT)
    return int(box[0] + box[2])


@lru_cache(maxsize=8)
def panel(rows: tuple[tuple[str, ...], ...], size: int) -> NDArray[np.uint8]:
    """Render rows of text in columns on a translucent dark panel: uint8 (h, w, 4), BGRA; letters `size` pixels high."""
    gap, line = size, round(size * 1.6)
    columns = [max(_width(row[i], size) for row in rows) for i in range(len(rows[0]))]
    width = sum(columns) + gap * (len(columns) + 1)
    image = np.zeros((line * len(rows) + gap, width, 4), np.uint8)
    image[:] = (20, 17, 13, 225)
    for y, row in enumerate(rows):
        left = gap
        for text, column in zip(row, columns, strict=True):
            _write(image, text, left, gap // 2 + round(line * (y + 0.7)), size)
            left += column + gap
    return image


def _write(image: NDArray[np.uint8], text: str, left: int, baseline: int, size: int) -> None:
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.putText(mask, drawable(text), (left, baseline), (255,), _font(), size, _WEIGHT)
    share = mask[..., None] / np.float32(255)
    image[..., :3] = np.rint(image[..., :3] * (1 - share) + 240 * share)
    np.maximum(image[..., 3], mask, out=image[..., 3])
