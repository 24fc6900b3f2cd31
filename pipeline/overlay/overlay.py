"""Draws segmentations into frames: class colors, contours, legend and status line, blended in the frame's color space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.nv12 import check_frame, upright_box, upright_size
from cliprl.pipeline.core.segmentation import Instances, Segmentation
from cliprl.pipeline.overlay.class_statistics import instance_statistics
from cliprl.pipeline.overlay.style import LABEL_LUMA, OverlayColors, Style, overlay_colors, shown_classes
from cliprl.pipeline.overlay.text import Patch, id_patch, legend_patch, letter_size, status_patch
from cliprl.pipeline.overlay.upsample import image_mask, label_region

# Lines of chroma that are painted at a time.
_STRIPE = 64
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_SQUARE = np.ones((3, 3), np.uint8)
# Lines of the chroma plane that a contour of width 1 is thin on.
_REFERENCE_LINES = 360


def contour_radius(width: float, lines: int) -> int:
    """How many pixels a contour of `width` reaches inwards on `lines` lines of chroma."""
    return max(1, round(width * lines / _REFERENCE_LINES))


def trace_contours(
    labels: NDArray[np.uint8], radius: int, image: NDArray[np.uint8] | None, scratch: BufferPool
) -> NDArray[np.uint8]:
    """The painter's map of labels (h, w) in the frame's geometry: each class's own border is lifted to its contour's levels.

    A contour reaches `radius` pixels inwards; it lies inside its class, so that neighbors both have one. There is none where
    `image` (h, w), which is 255 elsewhere, is 0: the edge of the view's image is no contour.
    """
    core, soft = scratch.array("core", labels.shape), scratch.array("soft", labels.shape)
    highest, lowest = scratch.array("highest", labels.shape), scratch.array("lowest", labels.shape)
    cv2.dilate(labels, _CROSS, highest), cv2.erode(labels, _CROSS, lowest)
    for i in range(1, radius + 1):
        if i == radius:
            cv2.compare(highest, lowest, cv2.CMP_NE, core)
        # Cross and square in turn reach out in octagons.
        kernel = _SQUARE if i % 2 else _CROSS
        cv2.dilate(highest, kernel, highest), cv2.erode(lowest, kernel, lowest)
    cv2.compare(highest, lowest, cv2.CMP_NE, soft)
    np.bitwise_and(soft, LABEL_LUMA, out=soft)
    np.bitwise_and(core, LABEL_LUMA, out=core)
    levels: NDArray[np.uint8] = np.add(core, soft, out=core)
    if image is not None:
        np.bitwise_and(levels, image, out=levels)
    return np.add(levels, labels, out=levels)


def paint(luma: Plane, chroma: Plane, labels: NDArray[np.uint8], inks: OverlayColors, scratch: BufferPool) -> None:
    """Blend a painter's map of the size of `chroma` into the planes; each of its pixels is 2x2 of luma, smoothed.

    It is done in stripes, so that what one step writes is still in the cache for the next, and bare ones are passed over.
    """
    for first in range(0, len(labels), _STRIPE):
        _paint_stripe(luma, chroma, labels, slice(first, min(first + _STRIPE, len(labels))), inks, scratch)


def _paint_stripe(
    luma: Plane, chroma: Plane, labels: NDArray[np.uint8], rows: slice, inks: OverlayColors, scratch: BufferPool
) -> None:
    # A line of each neighboring stripe, as smoothing needs it; and a bare column on either side, where it ends.
    before, after = min(rows.start, 1), min(len(labels) - rows.stop, 1)
    stripe = labels[rows.start - before : rows.stop + after]
    left, _, width, _ = cv2.boundingRect(stripe)
    if not width:
        return
    columns = slice(max(left - 1, 0), min(left + width + 1, labels.shape[1]))
    box = stripe[:, columns]
    keep, *add = (
        np.asarray(cv2.LUT(box, table, scratch.array(f"small {i}", box.shape, np.uint16)), np.uint16)
        for i, table in enumerate((inks.keep, *inks.add))
    )
    luma, chroma = luma[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop], chroma[rows, columns]
    lines, size = slice(2 * before, 2 * before + len(luma)), (2 * box.shape[1], 2 * len(box))
    large_keep, large_add = (
        cv2.resize(small, size, scratch.array(name, size[::-1], np.uint16), interpolation=cv2.INTER_LINEAR)
        for small, name in ((keep, "large keep"), (add[0], "large add"))
    )
    within = (lines, slice(luma.shape[1]))
    blend(luma, np.asarray(large_keep, np.uint16)[within], np.asarray(large_add, np.uint16)[within], scratch)
    lines = slice(before, before + len(chroma))
    both = (*box.shape, 2)
    keeps = np.asarray(cv2.merge([keep, keep], scratch.array("keeps", both, np.uint16)), np.uint16)
    adds = np.asarray(cv2.merge(add[1:], scratch.array("adds", both, np.uint16)), np.uint16)
    blend(chroma, keeps[lines], adds[lines], scratch)


def blend(plane: Plane, keep: NDArray[np.uint16], add: NDArray[np.uint16], scratch: BufferPool) -> None:
    """plane = (plane * keep + add) >> 8, in place, for arrays of one shape."""
    mixed = scratch.array("mixed", plane.shape, np.uint16)
    np.copyto(mixed, plane)
    np.multiply(mixed, keep, out=mixed)
    cv2.add(mixed, add, mixed)  # saturates, where numpy would wrap
    np.right_shift(mixed, 8, out=mixed)
    np.copyto(plane, mixed, casting="unsafe")


def place(frame: Frame, patch: Patch, x: int, y: int, scratch: BufferPool) -> None:
    """Blend a patch into the image as it is displayed, its corner at the even x, y of luma; it is cut where it is too large."""
    for part, keep, add in patch_parts(frame, patch, x, y):
        blend(part, keep, add, scratch)


def patch_parts(
    frame: Frame, patch: Patch, x: int, y: int
) -> Iterator[tuple[Plane, NDArray[np.uint16], NDArray[np.uint16]]]:
    """What of luma and of chroma a patch at x, y covers, as views turned as they are displayed, with what to keep and to add."""
    turns = frame.rotation // 90
    luma, chroma = (np.rot90(plane, turns) if turns else plane for plane in (frame.luma, frame.chroma))
    height, width = (n // 2 * 2 for n in luma.shape)
    rows, columns = min(len(patch.luma_keep), height - y), min(patch.luma_keep.shape[1], width - x)
    if rows <= 0 or columns <= 0:
        return
    for plane, keep, add, step in (
        (luma, patch.luma_keep, patch.luma_add, 1),
        (chroma, patch.chroma_keep, patch.chroma_add, 2),
    ):
        part = plane[y // step : (y + rows) // step, x // step : (x + columns) // step]
        yield part, keep[: rows // step, : columns // step], add[: rows // step, : columns // step]


# A class with fewer pixels than this share of the image (5 of the shipped network's 5,120) is painted, but gets no line in the
# legend: it would flicker, and a speck is no finding.
LEGEND_SHARE = 0.001


class Overlay:
    """Draws segmentations of `classes` into frames. What it draws depends on frame, segmentation, style and status alone.

    Raises UsageError where the style names a class that is not there. `style` may be replaced between frames. Not for use by
    two threads at once. `to_host` tells a device whether the painted planes are needed in host memory.
    """

    def __init__(self, classes: Sequence[ClassSpec], style: Style | None = None) -> None:
        if len(classes) > LABEL_LUMA:
            raise UsageError(f"{len(classes)} classes are too many to paint: give at most {LABEL_LUMA}")
        self.classes = tuple(classes)
        self.to_host = True
        self._scratch = BufferPool()
        self._inks: dict[ColorSpace, OverlayColors] = {}
        self.style = style or Style()

    @property
    def style(self) -> Style:
        """How the overlay looks."""
        return self._style

    @style.setter
    def style(self, style: Style) -> None:
        self._shown = shown_classes(self.classes, style.shown)
        self._style = style
        self._inks.clear()

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Draw into the frame's planes, in place, in its own color matrix and range.

        Pixels of the background, outside of contours and text, keep their values; at opacity 0 all do. Without a
        segmentation only the status line is drawn. Raises UsageError for what is no frame.
        """
        if not isinstance(frame, Frame):
            check_frame(frame)
        if self.style.opacity == 0:
            return
        color = ColorSpace(frame.color.matrix, frame.color.full_range)
        size = letter_size(frame.height, frame.width)
        if segmentation is not None:
            self._paint(frame, segmentation, color)
            present = self._present(segmentation)
            if present and self.style.legend:
                self._place(frame, legend_patch(present, size, color), size, at_bottom=False)
            if segmentation.instances:
                self._mark_instances(frame, segmentation, segmentation.instances, size, color)
        if status and self.style.status:
            self._place(frame, status_patch(status, size, color), size, at_bottom=True)

    def _paint(self, frame: Frame, segmentation: Segmentation, color: ColorSpace) -> None:
        if color not in self._inks:
            self._inks[color] = overlay_colors(self.classes, self._shown, self.style.opacity, color)
        lines, width = frame.chroma.shape[:2]
        radius = contour_radius(self.style.contour_width, lines)
        image, view = None, segmentation.view
        if view.circle is not None or view.crop[2:] != (view.frame_width, view.frame_height):
            image = image_mask(view, lines, width, margin=radius + 2)
        region = label_region(segmentation, self._shown, lines, width, radius + 2, self._scratch)
        if region is None:
            return
        labels, rows, columns = region
        if self.style.contours:
            labels = trace_contours(labels, radius, None if image is None else image[rows, columns], self._scratch)
        luma = frame.luma[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop]
        paint(luma, frame.chroma[rows, columns], labels, self._inks[color], self._scratch)

    def _mark_instances(
        self, frame: Frame, segmentation: Segmentation, instances: Instances, size: int, color: ColorSpace
    ) -> None:
        """Write the id of each instrument in the middle of its box."""
        height, width = (n // 2 * 2 for n in (upright_size(frame)))
        followed = instances.followed
        for found in instance_statistics(segmentation):
            if found.instance.class_id not in self._shown:
                continue
            number = found.instance.id
            patch = id_patch(number, size, color, followed=followed is not None and followed.id == number)
            left, top, box_width, box_height = upright_box(found.box, frame)
            x = min(max(left + (box_width - patch.luma_keep.shape[1]) // 2, 0), width - patch.luma_keep.shape[1])
            y = min(max(top + (box_height - len(patch.luma_keep)) // 2, 0), height - len(patch.luma_keep))
            place(frame, patch, max(x, 0) // 2 * 2, max(y, 0) // 2 * 2, self._scratch)

    def _present(self, segmentation: Segmentation) -> tuple[ClassSpec, ...]:
        """The painted classes that the legend names."""
        counts = np.bincount(segmentation.labels.ravel(), minlength=len(self.classes))
        least = LEGEND_SHARE * segmentation.labels.size
        return tuple(self.classes[i] for i in sorted(self._shown) if counts[i] > least)

    def _place(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> None:
        """Blend a patch into the left corner, top or bottom, of the image as it is displayed."""
        place(frame, patch, *corner(frame, patch, size, at_bottom=at_bottom), self._scratch)


def corner(frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> tuple[int, int]:
    """The even x, y of luma at which a patch lies in the left corner, top or bottom, of the image as it is displayed."""
    height = (frame.width if frame.rotation % 180 else frame.height) // 2 * 2
    x = y = size // 2 * 2
    return x, max(height - len(patch.luma_keep) - y, 0) if at_bottom else y
