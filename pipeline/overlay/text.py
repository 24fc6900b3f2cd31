"""The overlay's text: a legend of the classes in view and a status line, as patches that are blended into the planes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv_matrix

_PANEL, _TEXT = (0, 0, 0), (245, 245, 245)
_PANEL_OPACITY = 0.6
# Height of the letters as a share of the shorter side of the frame, and the smallest height in pixels.
_LETTER_SHARE, _SMALLEST = 1 / 34, 9


class Patch(NamedTuple):
    """A small image ready to be blended: for luma (h, w) and chroma (h/2, w/2, 2) what to keep and what to add, in 256ths.

    Heights and widths are even. See `paint.blend` for the arithmetic.
    """

    luma_keep: NDArray[np.uint16]
    luma_add: NDArray[np.uint16]
    chroma_keep: NDArray[np.uint16]
    chroma_add: NDArray[np.uint16]


@lru_cache(maxsize=8)
def letter_size(height: int, width: int) -> int:
    """Return the height of the overlay's letters in pixels, for a frame of this size."""
    return max(round(min(height, width) * _LETTER_SHARE), _SMALLEST)


@lru_cache(maxsize=64)
def legend_patch(classes: tuple[ClassSpec, ...], size: int, color: ColorSpace) -> Patch:
    """A panel with a color swatch and the name of each class, in letters `size` pixels high."""
    line, gap = round(size * 1.5), round(size * 0.6)
    width = max(_text_width(c.name, size) for c in classes)
    canvas = _Canvas(line * len(classes) + gap, width + line + 2 * gap, color)
    canvas.panel(size // 3)
    for i, spec in enumerate(classes):
        middle = gap / 2 + line * (i + 0.5)
        canvas.box(gap, round(middle - size * 0.4), round(size * 0.8), size // 5, spec.color)
        canvas.text(spec.name, gap + line - size // 4, round(middle + size * 0.36), size)
    return canvas.patch()


@lru_cache(maxsize=32)  # the milliseconds in it change from frame to frame
def status_patch(text: str, size: int, color: ColorSpace) -> Patch:
    """One line of text on a translucent bar, in letters `size` pixels high."""
    gap = round(size * 0.6)
    canvas = _Canvas(round(size * 1.6), _text_width(text, size) + 2 * gap, color)
    canvas.panel(size // 3)
    canvas.text(text, gap, round(size * 1.16), size)
    return canvas.patch()


@lru_cache(maxsize=64)
def id_patch(number: int, size: int, color: ColorSpace, *, followed: bool = False) -> Patch:
    """The id of an instrument on a translucent panel, in letters `size` pixels high; with a mark if it is followed."""
    text, gap = f"{'> ' if followed else ''}#{number}", round(size * 0.4)
    canvas = _Canvas(round(size * 1.5), _text_width(text, size) + 2 * gap, color)
    canvas.panel(size // 3)
    canvas.text(text, gap, round(size * 1.1), size)
    return canvas.patch()


_FONT_NAME, _FONT_WEIGHT = "sans", 500


@lru_cache(maxsize=1)
def _font() -> cv2.FontFace:
    return cv2.FontFace(_FONT_NAME)


def drawable(text: str) -> str:
    """Return a text with the bytes of a name that are not UTF-8 as \\udce9: on those OpenCV crashes, and the program with it."""
    return text.encode("utf-8", "backslashreplace").decode()


def load_font() -> None:
    """Load the font now, which takes 0.03 s, and not when the first text is drawn."""
    _text_width("x", 9)


def _text_width(text: str, size: int) -> int:
    box: Sequence[int] = cv2.getTextSize((0, 0), drawable(text), (0, 0), _font(), size, _FONT_WEIGHT)
    return int(box[0] + box[2])


class _Canvas:
    """Collects shapes in a frame's color space: their joint opacity, and their color times that opacity."""

    def __init__(self, height: int, width: int, color: ColorSpace) -> None:
        shape = (height + height % 2, width + width % 2)
        self._matrix, self._offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
        self._alpha = np.zeros(shape, np.float32)
        self._premultiplied = np.zeros((3, *shape), np.float32)

    def panel(self, radius: int) -> None:
        """A translucent background all over, with round corners."""
        height, width = self._alpha.shape
        self._cover(0, 0, _rounded(height, width, radius) * np.float32(_PANEL_OPACITY), _PANEL)

    def box(self, left: int, top: int, size: int, radius: int, rgb: tuple[int, int, int]) -> None:
        """A square with round corners."""
        self._cover(left, top, _rounded(size, size, radius), rgb)

    def text(self, text: str, left: int, baseline: int, size: int) -> None:
        """A line of text."""
        top = max(baseline - size, 0)
        mask = np.zeros((min(size * 3 // 2, len(self._alpha) - top), self._alpha.shape[1] - left), np.uint8)
        cv2.putText(mask, drawable(text), (0, baseline - top), (255,), _font(), size, _FONT_WEIGHT)
        self._cover(left, top, mask * np.float32(1 / 255), _TEXT)

    def _cover(self, left: int, top: int, opacity: NDArray[np.float32], rgb: tuple[int, int, int]) -> None:
        area = (slice(top, top + len(opacity)), slice(left, left + opacity.shape[1]))
        under = 1 - opacity
        self._alpha[area] = 1 - under * (1 - self._alpha[area])
        for plane, value in zip(self._premultiplied, self._matrix @ rgb + self._offset, strict=True):
            plane[area] = plane[area] * under + opacity * np.float32(value)

    def patch(self) -> Patch:
        """What was collected, in 256ths."""
        half = (self._alpha.shape[1] // 2, len(self._alpha) // 2)
        luma_keep, luma_add = _in_256ths(self._alpha, self._premultiplied[0])
        alpha, *chroma = (
            np.asarray(cv2.resize(plane, half, interpolation=cv2.INTER_AREA), np.float32)
            for plane in (self._alpha, *self._premultiplied[1:])
        )
        keeps, adds = zip(*(_in_256ths(alpha, plane) for plane in chroma), strict=True)
        return Patch(luma_keep, luma_add, np.stack(keeps, axis=2), np.stack(adds, axis=2))


def _in_256ths(
    alpha: NDArray[np.float32], premultiplied: NDArray[np.float32]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """What to keep and what to add. The two are rounded to the same opacity, so that white on white stays below 256."""
    share = np.rint(alpha * 256)
    value = premultiplied / np.maximum(alpha, np.float32(1e-6))
    return (256 - share).astype(np.uint16), (share * np.clip(value, 0, 255) + np.float32(128.5)).astype(np.uint16)


@lru_cache(maxsize=16)
def _rounded(height: int, width: int, radius: int) -> NDArray[np.float32]:
    """Coverage, 0..1, of a rectangle with round corners, softened over one pixel."""
    y, x = np.ogrid[:height, :width]
    dx = np.abs(x + 0.5 - width / 2) - width / 2 + radius
    dy = np.abs(y + 0.5 - height / 2) - height / 2 + radius
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius
    return np.clip(0.5 - outside, 0, 1).astype(np.float32)
