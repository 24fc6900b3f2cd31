"""What the viewer sees of a segmentation: colours, contours, legend and status line, blended into the frame's planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.blend import LEVEL, OverlayColors, overlay_colors, paint, place, trace_contours
from cliprl.pipeline.overlay.text import Patch, legend_patch, letter_size, status_patch
from cliprl.pipeline.overlay.upsample import labels_at

# A class with fewer pixels than this share of the picture (5 of the shipped network's 5,120) is painted, but gets no line in the
# legend: it would flicker, and a speck is no finding.
LEGEND_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class Style:
    """How an overlay looks. Raises UsageError for values out of range.

    opacity: 0 (frames pass untouched, text and all) to 1 (classes hide what is under them). contours: draw the classes'
    borders at full opacity, `contour_width` pixels wide in a picture of 360 lines of chroma and wider in larger ones.
    legend, status: draw them. shown: names of the classes to paint, None for all; a background class never is.
    """

    opacity: float = 0.4
    contours: bool = True
    contour_width: float = 1.0
    legend: bool = True
    status: bool = True
    shown: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"opacity {self.opacity:g} is out of range: give 0 (nothing) to 1 (opaque)")
        if not 0 < self.contour_width <= 20:
            raise UsageError(f"contour width {self.contour_width:g} is out of range: give more than 0, and at most 20")


class Overlay:
    """Draws segmentations of `classes` into frames. What it draws depends on frame, segmentation, style and status alone.

    Raises UsageError where the style names a class that is not there. `style` may be replaced between frames. Not for use by
    two threads at once. `to_host` tells a device whether the painted planes are needed in host memory.
    """

    def __init__(self, classes: Sequence[ClassSpec], style: Style | None = None) -> None:
        if len(classes) > LEVEL:
            raise UsageError(f"{len(classes)} classes are too many to paint: give at most {LEVEL}")
        self.classes = tuple(classes)
        self.to_host = True
        self._scratch = BufferPool()
        self._inks: dict[Color, OverlayColors] = {}
        self.style = style or Style()

    @property
    def style(self) -> Style:
        """How the overlay looks."""
        return self._style

    @style.setter
    def style(self, style: Style) -> None:
        self._shown = _shown(self.classes, style.shown)
        self._style = style
        self._inks.clear()

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Draw into the frame's planes, in place, in its own colour matrix and range.

        Pixels of the background, outside of contours and text, keep their values; at opacity 0 all do. Without a
        segmentation only the status line is drawn.
        """
        if self.style.opacity == 0:
            return
        color = Color(frame.color.matrix, frame.color.full_range)
        size = letter_size(frame.height, frame.width)
        if segmentation is not None:
            self._paint(frame, segmentation, color)
            present = self._present(segmentation)
            if present and self.style.legend:
                self._place(frame, legend_patch(present, size, color), size, at_bottom=False)
        if status and self.style.status:
            self._place(frame, status_patch(status, size, color), size, at_bottom=True)

    def _paint(self, frame: Frame, segmentation: Segmentation, color: Color) -> None:
        if color not in self._inks:
            self._inks[color] = overlay_colors(self.classes, self._shown, self.style.opacity, color)
        labels = labels_at(segmentation, len(frame.chroma), frame.chroma.shape[1], self._scratch)
        if self.style.contours:
            labels = trace_contours(labels, segmentation.view, self.style.contour_width, self._scratch)
        paint(frame, labels, self._inks[color], self._scratch)

    def _present(self, segmentation: Segmentation) -> tuple[ClassSpec, ...]:
        """The painted classes that the legend names."""
        counts = np.bincount(segmentation.labels.ravel(), minlength=len(self.classes))
        least = LEGEND_SHARE * segmentation.labels.size
        return tuple(self.classes[i] for i in sorted(self._shown) if counts[i] > least)

    def _place(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> None:
        """Blend a patch into the left corner, top or bottom, of the picture as it is displayed."""
        place(frame, patch, *corner(frame, patch, size, at_bottom=at_bottom), self._scratch)


def corner(frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> tuple[int, int]:
    """The even x, y of luma at which a patch lies in the left corner, top or bottom, of the picture as it is displayed."""
    height = (frame.width if frame.rotation % 180 else frame.height) // 2 * 2
    x = y = size // 2 * 2
    return x, max(height - len(patch.luma_keep) - y, 0) if at_bottom else y


def _shown(classes: Sequence[ClassSpec], names: Sequence[str] | None) -> frozenset[int]:
    """The ids of the classes to paint. Raises UsageError for a name that is not among them."""
    known = {spec.name: i for i, spec in enumerate(classes) if spec.kind != "background"}
    for name in names or ():
        if name not in known:
            raise UsageError(f"unknown class '{name}': one of {', '.join(known)}")
    return frozenset(known.values() if names is None else (known[name] for name in names))
